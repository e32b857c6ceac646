// MSL's words for algorithm/. The prologue has included <metal_stdlib>; math mode is safe, so that
// infinities mean what they should.
#pragma once
#define INGOT_FN inline
#define INGOT_INDEX long

// Unrolled loops turn arrays of tiles into registers.
#define INGOT_UNROLL _Pragma("clang loop unroll(full)")

namespace ingot {

inline float minus_infinity() { return -metal::numeric_limits<float>::infinity(); }

// The fast exp2 is the instruction itself: 0 at -inf, exact at 0.
inline float exp2_(float x) { return metal::fast::exp2(x); }
inline float log2_(float x) { return metal::precise::log2(x); }
inline float tanh_(float x) { return metal::precise::tanh(x); }
inline float max_(float a, float b) { return metal::max(a, b); }
inline float finite_or_(float x, float otherwise) { return x == minus_infinity() ? otherwise : x; }

}  // namespace ingot
