// <metal_integer>, <metal_packing>: bits, saturation, and packed conversions.
#pragma once
#include "softmetal_math.h"

namespace metal {

#define SOFTMETAL_INTEGER_1(name, expression)                        \
  template <typename T>                                              \
  constexpr softmetal::when<softmetal::is_integer<T>, T> name(T x) { \
    return T(expression);                                            \
  }                                                                  \
  template <typename V>                                              \
  softmetal::integer_vector<V> name(V x) {                           \
    V r;                                                             \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i)             \
      r[i] = name(softmetal::element_t<V>(x[i]));                    \
    return r;                                                        \
  }
#define SOFTMETAL_INTEGER_2(name, expression)                                    \
  template <typename T>                                                          \
  constexpr softmetal::when<softmetal::is_integer<T>, T> name(T x, T y) {        \
    return T(expression);                                                        \
  }                                                                              \
  template <typename V>                                                          \
  softmetal::integer_vector<V> name(V x, V y) {                                  \
    V r;                                                                         \
    for (int i = 0; i < softmetal::Shape<V>::width; ++i)                         \
      r[i] = name(softmetal::element_t<V>(x[i]), softmetal::element_t<V>(y[i])); \
    return r;                                                                    \
  }
}  // namespace metal

namespace softmetal {
template <typename T>
using unsigned_of = metal::make_unsigned_t<T>;
template <typename T>
inline constexpr int bits_of = int(sizeof(T) * 8);
template <typename T>
constexpr T reverse(T x) {
  unsigned_of<T> u = unsigned_of<T>(x), r = 0;
  for (int i = 0; i < bits_of<T>; ++i) {
    r = unsigned_of<T>(r << 1 | (u & 1));
    u = unsigned_of<T>(u >> 1);
  }
  return T(r);
}
template <typename T>
constexpr T clz(T x) {
  return x == 0 ? T(bits_of<T>) : T(__builtin_clzl(ulong(unsigned_of<T>(x))) - (64 - bits_of<T>));
}
template <typename T>
constexpr T ctz(T x) {
  return x == 0 ? T(bits_of<T>) : T(__builtin_ctzl(ulong(unsigned_of<T>(x))));
}
template <typename T>
constexpr T mulhi(T x, T y) {
  if constexpr (sizeof(T) == 8) {
    using Wide = metal::conditional_t<is_signed_integer<T>, __int128, unsigned __int128>;
    return T((Wide(x) * Wide(y)) >> 64);
  } else {
    using Wide = metal::conditional_t<is_signed_integer<T>, long, ulong>;
    return T((Wide(x) * Wide(y)) >> bits_of<T>);
  }
}
template <typename T>
constexpr T rotate(T x, T n) {
  const int by = int(n) & (bits_of<T> - 1);
  const auto u = unsigned_of<T>(x);
  return by == 0 ? x : T(unsigned_of<T>(u << by) | unsigned_of<T>(u >> (bits_of<T> - by)));
}
template <typename T>
constexpr T add_saturated(T x, T y) {
  T r{};
  if (!__builtin_add_overflow(x, y, &r)) return r;
  return is_signed_integer<T> && x < T(0) ? metal::numeric_limits<T>::lowest()
                                          : metal::numeric_limits<T>::max();
}
template <typename T>
constexpr T subtract_saturated(T x, T y) {
  T r{};
  if (!__builtin_sub_overflow(x, y, &r)) return r;
  return x < T(0) || !is_signed_integer<T> ? metal::numeric_limits<T>::lowest()
                                           : metal::numeric_limits<T>::max();
}
}  // namespace softmetal

namespace metal {
SOFTMETAL_INTEGER_1(popcount, __builtin_popcountl(ulong(softmetal::unsigned_of<T>(x))))
SOFTMETAL_INTEGER_1(clz, softmetal::clz(x))
SOFTMETAL_INTEGER_1(ctz, softmetal::ctz(x))
SOFTMETAL_INTEGER_1(reverse_bits, softmetal::reverse(x))
SOFTMETAL_INTEGER_2(mulhi, softmetal::mulhi(x, y))
SOFTMETAL_INTEGER_2(rotate, softmetal::rotate(x, y))
SOFTMETAL_INTEGER_2(addsat, softmetal::add_saturated(x, y))
SOFTMETAL_INTEGER_2(subsat, softmetal::subtract_saturated(x, y))
SOFTMETAL_INTEGER_2(hadd, (x >> 1) + (y >> 1) + (x & y & T(1)))
SOFTMETAL_INTEGER_2(rhadd, (x >> 1) + (y >> 1) + ((x | y) & T(1)))
SOFTMETAL_INTEGER_2(absdiff, x < y ? softmetal::unsigned_of<T>(y) - softmetal::unsigned_of<T>(x)
                                   : softmetal::unsigned_of<T>(x) - softmetal::unsigned_of<T>(y))
template <typename T>
constexpr softmetal::when<softmetal::is_integer<T>, T> mad24(T x, T y, T z) {
  return x * y + z;
}
template <typename T>
constexpr softmetal::when<softmetal::is_integer<T>, T> mul24(T x, T y) {
  return x * y;
}
template <typename T>
constexpr softmetal::when<softmetal::is_integer<T>, T> madhi(T a, T b, T c) {
  return T(softmetal::mulhi(a, b) + c);
}
template <typename T>
constexpr softmetal::when<softmetal::is_integer<T>, T> madsat(T a, T b, T c) {
  T product{};
  if (__builtin_mul_overflow(a, b, &product)) {
    return (a < T(0)) != (b < T(0)) ? numeric_limits<T>::lowest() : numeric_limits<T>::max();
  }
  return softmetal::add_saturated(product, c);
}
template <typename T>
constexpr softmetal::when<softmetal::is_integer<T>, T> extract_bits(T x, uint offset, uint bits) {
  if (bits == 0) return T(0);
  const int shift = softmetal::bits_of<T> - int(bits);
  const auto u = softmetal::unsigned_of<T>(softmetal::unsigned_of<T>(x) << (shift - int(offset)));
  return T(T(u) >> shift);
}
template <typename T>
constexpr softmetal::when<softmetal::is_integer<T>, T> insert_bits(T base, T insert, uint offset,
                                                                   uint bits) {
  if (bits == 0) return base;
  using U = softmetal::unsigned_of<T>;
  const U ones = bits >= uint(softmetal::bits_of<T>) ? U(~U(0)) : U((U(1) << bits) - 1);
  const U mask = U(ones << offset);
  return T(U(U(base) & U(~mask)) | U(U(U(insert) << offset) & mask));
}
#undef SOFTMETAL_INTEGER_1
#undef SOFTMETAL_INTEGER_2
}  // namespace metal

// Packed vectors: the alignment of one element. Those of width 3 also have no padding.
#define SOFTMETAL_PACKED(T)                                                               \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(sizeof(T))));        \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(sizeof(T))));        \
  struct packed_##T##3 {                                                                  \
    T x, y, z;                                                                            \
    packed_##T##3() = default;                                                            \
    constexpr packed_##T##3(T s) : x(s), y(s), z(s) {}                                    \
    constexpr packed_##T##3(T a, T b, T c) : x(a), y(b), z(c) {}                          \
    constexpr packed_##T##3(T##3 v) : x(v.x), y(v.y), z(v.z) {}                           \
    constexpr operator T##3() const { return T##3 {x, y, z}; }                            \
    friend constexpr T##3 softmetal_unpacked(packed_##T##3 p) { return p; }               \
    T operator[](int i) const { return i == 0 ? x : i == 1 ? y : z; }                     \
    T& operator[](int i) { return i == 0 ? x : i == 1 ? y : z; }                          \
    friend T##3 operator+(packed_##T##3 a, T##3 b) { return T##3(a) + b; }                \
    friend T##3 operator-(packed_##T##3 a, T##3 b) { return T##3(a) - b; }                \
    friend T##3 operator*(packed_##T##3 a, T##3 b) { return T##3(a) * b; }                \
    friend T##3 operator+(packed_##T##3 a, packed_##T##3 b) { return T##3(a) + T##3(b); } \
    friend T##3 operator-(packed_##T##3 a, packed_##T##3 b) { return T##3(a) - T##3(b); } \
    friend T##3 operator*(packed_##T##3 a, packed_##T##3 b) { return T##3(a) * T##3(b); } \
    friend T##3 operator*(packed_##T##3 a, T b) { return T##3(a) * b; }                   \
    friend T##3 operator*(T a, packed_##T##3 b) { return a * T##3(b); }                   \
    friend T##3 operator+(T##3 a, packed_##T##3 b) { return a + T##3(b); }                \
    friend T##3 operator-(T##3 a, packed_##T##3 b) { return a - T##3(b); }                \
    friend T##3 operator*(T##3 a, packed_##T##3 b) { return a * T##3(b); }                \
    packed_##T##3 & operator+=(T##3 b) { return *this = T##3(*this) + b; }                \
    packed_##T##3 & operator-=(T##3 b) { return *this = T##3(*this) - b; }                \
    packed_##T##3 & operator*=(T b) { return *this = T##3(*this) * b; }                   \
  };
SOFTMETAL_PACKED(char)
SOFTMETAL_PACKED(uchar)
SOFTMETAL_PACKED(short)
SOFTMETAL_PACKED(ushort)
SOFTMETAL_PACKED(int)
SOFTMETAL_PACKED(uint)
SOFTMETAL_PACKED(half)
SOFTMETAL_PACKED(float)
SOFTMETAL_PACKED(bfloat)
#undef SOFTMETAL_PACKED
