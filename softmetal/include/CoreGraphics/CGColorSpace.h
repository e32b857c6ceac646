// The part of Apple's <CoreGraphics/CGColorSpace.h> that metal-cpp uses.
#pragma once

typedef struct CGColorSpace* CGColorSpaceRef;
