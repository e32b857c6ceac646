// The part of Apple's <IOSurface/IOSurfaceRef.h> that metal-cpp uses.
#pragma once

#include <dispatch/dispatch.h>

typedef struct __IOSurface* IOSurfaceRef;
