// What CUDA spells its own way, for src/algorithm and the kernels: no header is included, so that
// NVRTC compiles a kernel in a fraction of a second. Config names the element types.
#pragma once

#define INGOT_FN __device__ __forceinline__

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct f16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};

namespace ingot {

constexpr float infinity = __builtin_bit_cast(float, 0x7F800000);
constexpr float ln_2 = 0.693147180559945309417f;
constexpr float log2_e = 1.44269504088896340736f;

INGOT_FN float exp2_(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

INGOT_FN float log2_(float x) {
  float y;
  asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Relative error 2^-11, below the rounding of a score to f16 or bf16.
INGOT_FN float tanh_fast(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// To f32: 1 - 2 / (e^2|x| + 1), and a polynomial where that would cancel.
INGOT_FN float tanh_(float x) {
  const float a = fabsf(x), z = x * x;
  const float large = 1.0f - __fdividef(2.0f, exp2_(a * 2.88539008177792681472f) + 1.0f);
  float p = -0.00886323552990219656f;  // of tanh(x) / x in x^2, |x| < 0.5
  p = p * z + 0.02186948853615520282f;
  p = p * z - 0.05396825396825396825f;
  p = p * z + 0.13333333333333333333f;
  p = p * z - 0.33333333333333333333f;
  const float small = a + a * z * p;
  return copysignf(a < 0.35f ? small : (a > 20.0f ? 1.0f : large), x);
}

INGOT_FN float abs_(float x) { return fabsf(x); }
INGOT_FN float max_(float x, float y) { return fmaxf(x, y); }
INGOT_FN float finite_or_(float x, float y) { return x == -infinity ? y : x; }

// a * b, rounded whatever is added to it: large scores are off by more than 1 otherwise.
INGOT_FN float rounded_product_(float a, float b) { return __fmul_rn(a, b); }

// Natural logarithm of a row's sum of weights, of which the largest, `factor * max`, is 1.
INGOT_FN float lse_of(float max, float sum, float factor) {
  return rounded_product_(finite_or_(max, 0.0f), factor) + log2f(sum) * ln_2;
}

INGOT_FN void multiply_wide(u32 a, u32 b, u32& high, u32& low) {
  const u64 product = static_cast<u64>(a) * b;
  high = static_cast<u32>(product >> 32);
  low = static_cast<u32>(product);
}

// A NaN stays one.
INGOT_FN float min_or_nan(float x, float y) {
  float r;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y));
  return r;
}

INGOT_FN u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

INGOT_FN void load_shared(u32 from, float (&x)[2]) {
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x[0]), "=f"(x[1]) : "r"(from) : "memory");
}

// Two numbers as one register of T, `low` at the lower address.
template <class T>
INGOT_FN u32 pack(float low, float high);

template <>
INGOT_FN u32 pack<bf16>(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

template <>
INGOT_FN u32 pack<f16>(float low, float high) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// The two of them again.
template <class T>
INGOT_FN float low_of(u32 pair);
template <class T>
INGOT_FN float high_of(u32 pair);

template <>
INGOT_FN float low_of<bf16>(u32 pair) {
  return __uint_as_float(pair << 16);
}
template <>
INGOT_FN float high_of<bf16>(u32 pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}
template <>
INGOT_FN float low_of<f16>(u32 pair) {
  float x;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, low;\n}"
      : "=f"(x)
      : "r"(pair));
  return x;
}
template <>
INGOT_FN float high_of<f16>(u32 pair) {
  float x;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, high;\n}"
      : "=f"(x)
      : "r"(pair));
  return x;
}

// The same number, of which the compiler knows nothing: what follows from it is computed again
// rather than kept in registers.
INGOT_FN int anew(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

}  // namespace ingot
