// MSL's words for algorithm/. The prologue has included <metal_stdlib>; math mode is safe, so that
// infinities mean what they should.
#pragma once
#define INGOT_FN inline
#define INGOT_INDEX long
#define INGOT_BITS_64 ulong
#define INGOT_GLOBAL device

// Unrolled loops turn arrays of tiles into registers.
#define INGOT_UNROLL _Pragma("clang loop unroll(full)")

namespace ingot {

inline float minus_infinity() { return -metal::numeric_limits<float>::infinity(); }

// The fast exp2 is the instruction itself: 0 at -inf, exact at 0.
inline float exp2_(float x) { return metal::fast::exp2(x); }
inline float log2_(float x) { return metal::precise::log2(x); }
inline float tanh_(float x) { return metal::precise::tanh(x); }
inline float max_(float a, float b) { return metal::max(a, b); }
inline float abs_(float x) { return metal::abs(x); }
inline float finite_or_(float x, float otherwise) { return x == minus_infinity() ? otherwise : x; }

/// Any number in memory; ushort holds the bits of a bfloat.
template <class T>
inline float to_float(T x) {
  if constexpr (metal::is_same_v<T, ushort>) {
    return as_type<float>(uint(x) << 16);
  } else {
    return float(x);
  }
}

inline void multiply_wide(uint a, uint b, thread uint& high, thread uint& low) {
  high = metal::mulhi(a, b);
  low = a * b;
}

/// a * b, rounded whatever is added to it: large scores are off by more than 1 otherwise.
inline float rounded_product_(float a, float b) {
#pragma clang fp contract(off)
  return a * b;
}

constant constexpr float log2_e = 1.44269504088896340736f;
constant constexpr float ln_2 = 0.69314718055994530942f;

// Natural logarithm of a row's sum of weights, of which the largest, that of factor * max, is 1;
// -inf for a row without a key.
inline float lse_of(float max, float sum, float factor) {
  return rounded_product_(finite_or_(max, 0.0f), factor) + log2_(sum) * ln_2;
}

}  // namespace ingot
