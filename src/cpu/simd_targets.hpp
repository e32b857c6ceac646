// Which instruction sets the CPU back end is compiled for: AVX-512, AVX2 and the baseline on x86,
// NEON on arm64. Included before any header of Highway.
#pragma once

#ifdef HWY_HIGHWAY_INCLUDED
#error "cpu/simd_targets.hpp must come before hwy/highway.h"
#endif

// Names that this version of Highway does not know yet count as absent.
#define HWY_DISABLED_TARGETS                                                                   \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR | HWY_AVX10_2 | HWY_SVE | \
   HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_NEON_BF16)

#include <hwy/detect_targets.h>

#ifndef HWY_AVX3_ZEN4
#define HWY_AVX3_ZEN4 0
#endif
#ifndef HWY_AVX3_SPR
#define HWY_AVX3_SPR 0
#endif
#ifndef HWY_AVX10_2
#define HWY_AVX10_2 0
#endif
#ifndef HWY_NEON_BF16
#define HWY_NEON_BF16 0
#endif
