// <metal_math>, <metal_common>, <metal_relational>, <metal_geometric>. Every function is computed
// in float with the host's libm (within 1 ulp for the common ones, correctly rounded for half and
// bfloat but for rare double roundings); fast:: and precise:: are the same functions.
#pragma once
#include "softmetal_traits.h"

namespace softmetal {
template <typename V, typename R = V>
using float_vector = when<is_vector<V> && is_floating<element_t<V>>, R>;
template <typename V>
using integer_vector = when<is_vector<V> && is_integer<element_t<V>>, V>;
template <typename V>
using bools_of = Bools<Shape<V>::width>;
inline float round_even(float x) { return __builtin_rintf(x); }
inline float sinpi(float x) {
  const float r = x - 2.0f * __builtin_rintf(0.5f * x);
  return float(__builtin_sin(3.14159265358979323846 * double(r)));
}
inline float cospi(float x) {
  const float r = x - 2.0f * __builtin_rintf(0.5f * x);
  return float(__builtin_cos(3.14159265358979323846 * double(r)));
}
inline float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : (x == 0 ? x : 0.0f); }
inline float saturate(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float fract(float x) {
  const float f = x - __builtin_floorf(x);
  return f < 1.0f ? f : 0x1.fffffep-1f;
}
inline float powr(float x, float y) { return x < 0 ? __builtin_nanf("") : __builtin_powf(x, y); }
inline float smooth(float a, float b, float x) {
  const float t = saturate((x - a) / (b - a));
  return t * t * (3.0f - 2.0f * t);
}
}  // namespace softmetal

#define SOFTMETAL_EACH_1(name)                                              \
  template <typename V>                                                     \
  constexpr softmetal::float_vector<V> name(V x) {                          \
    V r;                                                                    \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = name(x[i]); \
    return r;                                                               \
  }
#define SOFTMETAL_EACH_2(name)                                                                    \
  template <typename V>                                                                           \
  constexpr softmetal::float_vector<V> name(V x, V y) {                                           \
    V r;                                                                                          \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = name(x[i], y[i]);                 \
    return r;                                                                                     \
  }                                                                                               \
  template <typename V, typename S>                                                               \
  constexpr softmetal::when<softmetal::is_scalar<S>, softmetal::float_vector<V>> name(V x, S y) { \
    return name(x, V(y));                                                                         \
  }                                                                                               \
  template <typename V, typename S>                                                               \
  constexpr softmetal::when<softmetal::is_scalar<S>, softmetal::float_vector<V>> name(S x, V y) { \
    return name(V(x), y);                                                                         \
  }
#define SOFTMETAL_EACH_3(name)                                                          \
  template <typename V>                                                                 \
  constexpr softmetal::float_vector<V> name(V x, V y, V z) {                            \
    V r;                                                                                \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = name(x[i], y[i], z[i]); \
    return r;                                                                           \
  }

#define SOFTMETAL_UNARY(name, expression)           \
  inline float name(float x) { return expression; } \
  inline half name(half h) {                        \
    const float x = float(h);                       \
    return half(expression);                        \
  }                                                 \
  inline bfloat name(bfloat h) {                    \
    const float x = float(h);                       \
    return bfloat(expression);                      \
  }                                                 \
  SOFTMETAL_EACH_1(name)
#define SOFTMETAL_BINARY(name, expression)                   \
  inline float name(float x, float y) { return expression; } \
  inline half name(half a, half b) {                         \
    const float x = float(a), y = float(b);                  \
    return half(expression);                                 \
  }                                                          \
  inline bfloat name(bfloat a, bfloat b) {                   \
    const float x = float(a), y = float(b);                  \
    return bfloat(expression);                               \
  }                                                          \
  SOFTMETAL_EACH_2(name)
#define SOFTMETAL_TERNARY(name, expression)                           \
  inline float name(float x, float y, float z) { return expression; } \
  inline half name(half a, half b, half c) {                          \
    const float x = float(a), y = float(b), z = float(c);             \
    return half(expression);                                          \
  }                                                                   \
  inline bfloat name(bfloat a, bfloat b, bfloat c) {                  \
    const float x = float(a), y = float(b), z = float(c);             \
    return bfloat(expression);                                        \
  }                                                                   \
  SOFTMETAL_EACH_3(name)

#define SOFTMETAL_FLOAT_FUNCTIONS                                     \
  SOFTMETAL_UNARY(acos, __builtin_acosf(x))                           \
  SOFTMETAL_UNARY(acosh, __builtin_acoshf(x))                         \
  SOFTMETAL_UNARY(asin, __builtin_asinf(x))                           \
  SOFTMETAL_UNARY(asinh, __builtin_asinhf(x))                         \
  SOFTMETAL_UNARY(atan, __builtin_atanf(x))                           \
  SOFTMETAL_UNARY(atanh, __builtin_atanhf(x))                         \
  SOFTMETAL_UNARY(ceil, __builtin_ceilf(x))                           \
  SOFTMETAL_UNARY(cos, __builtin_cosf(x))                             \
  SOFTMETAL_UNARY(cosh, __builtin_coshf(x))                           \
  SOFTMETAL_UNARY(cospi, softmetal::cospi(x))                         \
  SOFTMETAL_UNARY(exp, __builtin_expf(x))                             \
  SOFTMETAL_UNARY(exp2, __builtin_exp2f(x))                           \
  SOFTMETAL_UNARY(exp10, __builtin_powf(10.0f, x))                    \
  SOFTMETAL_UNARY(fabs, __builtin_fabsf(x))                           \
  SOFTMETAL_UNARY(floor, __builtin_floorf(x))                         \
  SOFTMETAL_UNARY(fract, softmetal::fract(x))                         \
  SOFTMETAL_UNARY(log, __builtin_logf(x))                             \
  SOFTMETAL_UNARY(log2, __builtin_log2f(x))                           \
  SOFTMETAL_UNARY(log10, __builtin_log10f(x))                         \
  SOFTMETAL_UNARY(rint, __builtin_rintf(x))                           \
  SOFTMETAL_UNARY(round, __builtin_roundf(x))                         \
  SOFTMETAL_UNARY(rsqrt, 1.0f / __builtin_sqrtf(x))                   \
  SOFTMETAL_UNARY(saturate, softmetal::saturate(x))                   \
  SOFTMETAL_UNARY(sign, softmetal::sign(x))                           \
  SOFTMETAL_UNARY(sin, __builtin_sinf(x))                             \
  SOFTMETAL_UNARY(sinh, __builtin_sinhf(x))                           \
  SOFTMETAL_UNARY(sinpi, softmetal::sinpi(x))                         \
  SOFTMETAL_UNARY(sqrt, __builtin_sqrtf(x))                           \
  SOFTMETAL_UNARY(tan, __builtin_tanf(x))                             \
  SOFTMETAL_UNARY(tanh, __builtin_tanhf(x))                           \
  SOFTMETAL_UNARY(tanpi, softmetal::sinpi(x) / softmetal::cospi(x))   \
  SOFTMETAL_UNARY(trunc, __builtin_truncf(x))                         \
  SOFTMETAL_BINARY(atan2, __builtin_atan2f(x, y))                     \
  SOFTMETAL_BINARY(copysign, __builtin_copysignf(x, y))               \
  SOFTMETAL_BINARY(divide, x / y)                                     \
  SOFTMETAL_BINARY(fdim, __builtin_fdimf(x, y))                       \
  SOFTMETAL_BINARY(fmax, __builtin_fmaxf(x, y))                       \
  SOFTMETAL_BINARY(fmin, __builtin_fminf(x, y))                       \
  SOFTMETAL_BINARY(fmod, __builtin_fmodf(x, y))                       \
  SOFTMETAL_BINARY(nextafter, __builtin_nextafterf(x, y))             \
  SOFTMETAL_BINARY(pow, __builtin_powf(x, y))                         \
  SOFTMETAL_BINARY(powr, softmetal::powr(x, y))                       \
  SOFTMETAL_BINARY(step, y < x ? 0.0f : 1.0f)                         \
  SOFTMETAL_TERNARY(fmax3, __builtin_fmaxf(x, __builtin_fmaxf(y, z))) \
  SOFTMETAL_TERNARY(fmin3, __builtin_fminf(x, __builtin_fminf(y, z))) \
  SOFTMETAL_TERNARY(fma, __builtin_fmaf(x, y, z))                     \
  SOFTMETAL_TERNARY(mix, x + (y - x) * z)                             \
  SOFTMETAL_TERNARY(smoothstep, softmetal::smooth(x, y, z))           \
  SOFTMETAL_TERNARY(                                                  \
      fmedian3, __builtin_fmaxf(__builtin_fminf(x, y), __builtin_fminf(__builtin_fmaxf(x, y), z)))

namespace metal {
namespace softmetal_float {
SOFTMETAL_FLOAT_FUNCTIONS
template <typename V, typename S>
softmetal::when<softmetal::is_scalar<S>, softmetal::float_vector<V>> mix(V x, V y, S a) {
  return mix(x, y, V(a));
}
template <typename F>
softmetal::when<softmetal::is_floating<F>, F> sincos(F x, thread F& c) {
  c = cos(x);
  return sin(x);
}
template <typename V>
softmetal::float_vector<V> sincos(V x, thread V& c) {
  c = cos(x);
  return sin(x);
}
template <typename F>
softmetal::when<softmetal::is_floating<F>, F> modf(F x, thread F& whole) {
  whole = trunc(x);
  return copysign(x - whole, x);
}
inline float frexp(float x, thread int& e) { return __builtin_frexpf(x, &e); }
inline half frexp(half x, thread int& e) { return half(__builtin_frexpf(float(x), &e)); }
inline float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
inline half ldexp(half x, int e) { return half(__builtin_ldexpf(float(x), e)); }
inline int ilogb(float x) { return __builtin_ilogbf(x); }
inline int ilogb(half x) { return __builtin_ilogbf(float(x)); }

// min, max and clamp of floats: the operand that is a number wins over NaN.
#define SOFTMETAL_MIN_MAX(T)                                                    \
  inline T min(T a, T b) { return T(__builtin_fminf(float(a), float(b))); }     \
  inline T max(T a, T b) { return T(__builtin_fmaxf(float(a), float(b))); }     \
  inline T clamp(T x, T low, T high) { return min(max(x, low), high); }         \
  inline T min3(T a, T b, T c) { return min(a, min(b, c)); }                    \
  inline T max3(T a, T b, T c) { return max(a, max(b, c)); }                    \
  inline T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); } \
  inline T abs(T x) { return fabs(x); }
SOFTMETAL_MIN_MAX(float)
SOFTMETAL_MIN_MAX(half)
SOFTMETAL_MIN_MAX(bfloat)
#undef SOFTMETAL_MIN_MAX
#define SOFTMETAL_MIN_MAX(T)                                                       \
  constexpr T min(T a, T b) { return b < a ? b : a; }                              \
  constexpr T max(T a, T b) { return a < b ? b : a; }                              \
  constexpr T clamp(T x, T low, T high) { return min(max(x, low), high); }         \
  constexpr T min3(T a, T b, T c) { return min(a, min(b, c)); }                    \
  constexpr T max3(T a, T b, T c) { return max(a, max(b, c)); }                    \
  constexpr T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); } \
  constexpr T abs(T x) { return x < T(0) ? T(-x) : x; }
SOFTMETAL_MIN_MAX(char)
SOFTMETAL_MIN_MAX(uchar)
SOFTMETAL_MIN_MAX(short)
SOFTMETAL_MIN_MAX(ushort)
SOFTMETAL_MIN_MAX(int)
SOFTMETAL_MIN_MAX(uint)
SOFTMETAL_MIN_MAX(long)
SOFTMETAL_MIN_MAX(ulong)
#undef SOFTMETAL_MIN_MAX
#define SOFTMETAL_VECTOR_2(name)                                                          \
  template <typename V>                                                                   \
  softmetal::when<softmetal::is_vector<V>, V> name(V a, V b) {                            \
    V r;                                                                                  \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = name(a[i], b[i]);         \
    return r;                                                                             \
  }                                                                                       \
  template <typename V, typename S>                                                       \
  softmetal::when<softmetal::is_vector<V> && softmetal::is_scalar<S>, V> name(V a, S b) { \
    return name(a, V(b));                                                                 \
  }                                                                                       \
  template <typename V, typename S>                                                       \
  softmetal::when<softmetal::is_vector<V> && softmetal::is_scalar<S>, V> name(S a, V b) { \
    return name(V(a), b);                                                                 \
  }
SOFTMETAL_VECTOR_2(min)
SOFTMETAL_VECTOR_2(max)
#undef SOFTMETAL_VECTOR_2
template <typename V, typename A, typename B>
softmetal::when<softmetal::is_vector<V>, V> clamp(V x, A low, B high) {
  return min(max(x, low), high);
}
template <typename V>
softmetal::when<softmetal::is_vector<V>, V> abs(V x) {
  V r;
  for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = abs(x[i]);
  return r;
}
}  // namespace softmetal_float

using namespace softmetal_float;
namespace fast {
using namespace softmetal_float;
}
namespace precise {
using namespace softmetal_float;
}

// Relational.
#define SOFTMETAL_CLASSIFY(name, expression)                                \
  inline bool name(float x) { return expression; }                          \
  inline bool name(half h) {                                                \
    const float x = float(h);                                               \
    return expression;                                                      \
  }                                                                         \
  inline bool name(bfloat h) {                                              \
    const float x = float(h);                                               \
    return expression;                                                      \
  }                                                                         \
  template <typename V>                                                     \
  softmetal::float_vector<V, softmetal::bools_of<V>> name(V v) {            \
    softmetal::bools_of<V> r{};                                             \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = name(v[i]); \
    return r;                                                               \
  }
SOFTMETAL_CLASSIFY(isnan, __builtin_isnan(x))
SOFTMETAL_CLASSIFY(isinf, __builtin_isinf(x))
SOFTMETAL_CLASSIFY(isfinite, __builtin_isfinite(x))
SOFTMETAL_CLASSIFY(isnormal, __builtin_isnormal(x))
SOFTMETAL_CLASSIFY(signbit, __builtin_signbit(x))
#undef SOFTMETAL_CLASSIFY
inline bool isunordered(float x, float y) { return __builtin_isunordered(x, y); }
inline bool isordered(float x, float y) { return !__builtin_isunordered(x, y); }
#define SOFTMETAL_ORDERED(name)                                                   \
  template <typename V>                                                           \
  softmetal::float_vector<V, softmetal::bools_of<V>> name(V a, V b) {             \
    softmetal::bools_of<V> r{};                                                   \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = name(a[i], b[i]); \
    return r;                                                                     \
  }
SOFTMETAL_ORDERED(isunordered)
SOFTMETAL_ORDERED(isordered)
#undef SOFTMETAL_ORDERED

template <typename V>
softmetal::when<softmetal::is_vector<V>, bool> any(V v) {
  bool r = false;
  for (int i = 0; i < softmetal::Shape<V>::width; ++i) r |= bool(v[i]);
  return r;
}
template <typename V>
softmetal::when<softmetal::is_vector<V>, bool> all(V v) {
  bool r = true;
  for (int i = 0; i < softmetal::Shape<V>::width; ++i) r &= bool(v[i]);
  return r;
}
inline bool any(bool b) { return b; }
inline bool all(bool b) { return b; }
template <typename T, typename U>
constexpr softmetal::when<!softmetal::is_vector<T> && !softmetal::is_vector<U>, T> select(T a, U b,
                                                                                          bool c) {
  return c ? T(b) : a;
}
template <typename V, typename C>
softmetal::when<softmetal::is_vector<V> && softmetal::is_vector<C>, V> select(V a, V b, C c) {
  V r;
  for (int i = 0; i < softmetal::Shape<V>::width; ++i) r[i] = bool(c[i]) ? b[i] : a[i];
  return r;
}
template <typename V>
softmetal::when<softmetal::is_vector<V>, V> select(V a, V b, bool c) {
  return c ? b : a;
}

// Geometric.
template <typename V>
softmetal::float_vector<V, softmetal::element_t<V>> dot(V a, V b) {
  float r = 0;
  for (int i = 0; i < softmetal::Shape<V>::width; ++i)
    r = __builtin_fmaf(float(a[i]), float(b[i]), r);
  return softmetal::element_t<V>(r);
}
template <typename V>
softmetal::float_vector<V, softmetal::element_t<V>> length_squared(V a) {
  return dot(a, a);
}
template <typename V>
softmetal::float_vector<V, softmetal::element_t<V>> length(V a) {
  return sqrt(dot(a, a));
}
template <typename V>
softmetal::float_vector<V, softmetal::element_t<V>> distance(V a, V b) {
  return length(a - b);
}
template <typename V>
softmetal::float_vector<V, softmetal::element_t<V>> distance_squared(V a, V b) {
  return dot(a - b, a - b);
}
template <typename V>
softmetal::float_vector<V> normalize(V a) {
  return a * rsqrt(dot(a, a));
}
template <typename T>
vec<T, 3> cross(vec<T, 3> a, vec<T, 3> b) {
  return a.yzx * b.zxy - a.zxy * b.yzx;
}
template <typename V>
softmetal::float_vector<V> reflect(V i, V n) {
  return i - softmetal::element_t<V>(2) * dot(n, i) * n;
}
template <typename V>
softmetal::float_vector<V> refract(V i, V n, softmetal::element_t<V> eta) {
  const float cosine = float(dot(n, i)), ratio = float(eta);
  const float k = 1.0f - ratio * ratio * (1.0f - cosine * cosine);
  if (k < 0) return V(softmetal::element_t<V>(0));
  return eta * i - softmetal::element_t<V>(ratio * cosine + __builtin_sqrtf(k)) * n;
}
template <typename V>
softmetal::float_vector<V> faceforward(V n, V i, V reference) {
  return dot(reference, i) < softmetal::element_t<V>(0) ? n : -n;
}
}  // namespace metal
