// The part of Apple's <CoreGraphics/CGGeometry.h> that metal-cpp uses.
#pragma once

typedef double CGFloat;
typedef struct CGSize {
  CGFloat width;
  CGFloat height;
} CGSize;
