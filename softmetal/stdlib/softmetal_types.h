// Address spaces, scalar and vector types, and how vectors are built and converted.
#pragma once
#include "softmetal_abi.h"

#define device __attribute__((opencl_global))
#define constant const __attribute__((opencl_global_device))
#define threadgroup __attribute__((opencl_local))
#define thread

#define SOFTMETAL_SITE (unsigned(__builtin_LINE()) << 10 | (unsigned(__builtin_COLUMN()) & 1023u))

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using size_t = unsigned long;
using ptrdiff_t = long;
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long;
using uint64_t = unsigned long;
using uintptr_t = unsigned long;
using intptr_t = long;
using half = _Float16;
using bfloat = __bf16;

extern "C" __attribute__((visibility("default"))) const softmetal_abi::Runtime* softmetal_runtime;

namespace metal {
template <typename T, int N>
using vec = T __attribute__((ext_vector_type(N)));
}

#define SOFTMETAL_VECTORS(T)     \
  using T##2 = metal::vec<T, 2>; \
  using T##3 = metal::vec<T, 3>; \
  using T##4 = metal::vec<T, 4>;
SOFTMETAL_VECTORS(char)
SOFTMETAL_VECTORS(uchar)
SOFTMETAL_VECTORS(short)
SOFTMETAL_VECTORS(ushort)
SOFTMETAL_VECTORS(int)
SOFTMETAL_VECTORS(uint)
SOFTMETAL_VECTORS(long)
SOFTMETAL_VECTORS(ulong)
SOFTMETAL_VECTORS(half)
SOFTMETAL_VECTORS(float)
SOFTMETAL_VECTORS(bfloat)
#undef SOFTMETAL_VECTORS

namespace softmetal {

template <typename T>
struct Plain {
  using type = T;
};
template <typename T>
struct Plain<const T> {
  using type = T;
};
template <typename T>
struct Plain<volatile T> {
  using type = T;
};
template <typename T>
struct Plain<T&> : Plain<T> {};
template <typename T>
struct Plain<T&&> : Plain<T> {};
#define SOFTMETAL_PLAIN(...)    \
  template <typename T>         \
  struct Plain<__VA_ARGS__ T> { \
    using type = T;             \
  };
SOFTMETAL_PLAIN(device)
SOFTMETAL_PLAIN(const device)
SOFTMETAL_PLAIN(volatile device)
SOFTMETAL_PLAIN(const volatile device)
SOFTMETAL_PLAIN(threadgroup)
SOFTMETAL_PLAIN(const threadgroup)
SOFTMETAL_PLAIN(volatile threadgroup)
SOFTMETAL_PLAIN(const volatile threadgroup)
SOFTMETAL_PLAIN(constant)
SOFTMETAL_PLAIN(const volatile)
#undef SOFTMETAL_PLAIN
template <typename T>
using plain_t = typename Plain<T>::type;

template <typename A, typename B>
inline constexpr bool same = false;
template <typename A>
inline constexpr bool same<A, A> = true;

template <bool B, typename T = void>
struct When {};
template <typename T>
struct When<true, T> {
  using type = T;
};
template <bool B, typename T = void>
using when = typename When<B, T>::type;

/// Element type and width; a scalar has width 1.
template <typename T>
struct Shape {
  using Element = T;
  static constexpr int width = 1;
};
template <typename T, int N>
struct Shape<T __attribute__((ext_vector_type(N)))> {
  using Element = T;
  static constexpr int width = N;
};
template <typename V>
using element_t = typename Shape<V>::Element;
template <typename V>
inline constexpr bool is_vector = (Shape<V>::width > 1);

template <typename T>
inline constexpr bool is_floating = same<T, float> || same<T, half> || same<T, bfloat>;
template <typename T>
inline constexpr bool is_integer =
    same<T, char> || same<T, signed char> || same<T, uchar> || same<T, short> || same<T, ushort> ||
    same<T, int> || same<T, uint> || same<T, long> || same<T, ulong> || same<T, long long> ||
    same<T, unsigned long long>;
template <typename T>
inline constexpr bool is_scalar =
    is_floating<T> || is_integer<T> || same<T, bool> || same<T, double>;
template <typename T>
inline constexpr bool is_signed_integer = is_integer<T> && T(-1) < T(0);

template <typename V, typename A>
constexpr void append(V& v, int& at, A a) {
  if constexpr (is_vector<A>) {
    for (int i = 0; i < Shape<A>::width; ++i) v[at++] = static_cast<element_t<V>>(a[i]);
  } else {
    v[at++] = static_cast<element_t<V>>(a);
  }
}

/// A vector of one type made of a vector of another, element by element.
template <typename V, typename A>
constexpr V convert(A a) {
  if constexpr (same<V, A>) {
    return a;
  } else if constexpr (same<element_t<V>, bool> || same<element_t<A>, bool>) {
    V v{};
    for (int i = 0; i < Shape<V>::width; ++i) v[i] = static_cast<element_t<V>>(a[i]);
    return v;
  } else {
    return __builtin_convertvector(a, V);
  }
}

/// Packed vectors overload this to become plain ones.
template <typename A>
constexpr A softmetal_unpacked(A a) {
  return a;
}

template <typename V, typename... A>
constexpr V make_of(A... a) {
  if constexpr (!is_vector<V>) {
    return V(a...);
  } else if constexpr (sizeof...(A) == 0) {
    return V{};
  } else if constexpr (sizeof...(A) == 1 && ((Shape<A>::width == Shape<V>::width) && ...)) {
    return convert<V>(a...);
  } else if constexpr (sizeof...(A) == 1 && (is_scalar<A> && ...)) {
    return (V)(static_cast<element_t<V>>(a), ...);
  } else if constexpr (sizeof...(A) == Shape<V>::width && (is_scalar<A> && ...)) {
    return V{static_cast<element_t<V>>(a)...};
  } else if constexpr ((is_scalar<A> && ...) || (is_vector<A> || ...)) {
    static_assert((Shape<A>::width + ...) == Shape<V>::width, "wrong number of vector elements");
    V v{};
    int at = 0;
    (append(v, at, a), ...);
    return v;
  } else {
    return V(a...);
  }
}

/// T(args...) as MSL means it: vectors from scalars and vectors in any mixture.
template <typename V, typename... A>
constexpr V make(A... a) {
  if constexpr (is_vector<V>) {
    return make_of<V>(softmetal_unpacked(a)...);
  } else {
    return V(a...);
  }
}

/// static_cast<T>(x) as MSL means it: vectors convert by element.
template <typename T, typename A>
constexpr T cast(const A& a) {
  if constexpr (is_vector<T>) {
    return make<T>(static_cast<plain_t<A>>(a));
  } else if constexpr ((same<T, half> && same<plain_t<A>, bfloat>) ||
                       (same<T, bfloat> && same<plain_t<A>, half>)) {
    return static_cast<T>(static_cast<float>(a));  // clang knows no direct way
  } else {
    return static_cast<T>(a);
  }
}

/// An operand of ?: as MSL means it: a struct in memory is read, all else stays as it is.
template <typename T>
constexpr T&& copied_out(T&& x) {
  return static_cast<T&&>(x);
}
#define SOFTMETAL_COPIED_OUT(space)                              \
  template <typename T, typename = when<__is_class(plain_t<T>)>> \
  constexpr plain_t<T> copied_out(space T& x) {                  \
    return x;                                                    \
  }
SOFTMETAL_COPIED_OUT(device)
SOFTMETAL_COPIED_OUT(threadgroup)
SOFTMETAL_COPIED_OUT(constant)
SOFTMETAL_COPIED_OUT(const device)
SOFTMETAL_COPIED_OUT(const threadgroup)
#undef SOFTMETAL_COPIED_OUT

/// {a, b, c} as an argument; becomes the vector or struct that the parameter is.
template <typename... A>
struct Braced;
template <typename A, typename B>
struct Braced<A, B> {
  A a;
  B b;
  template <typename T>
  constexpr operator T() const {
    if constexpr (is_vector<T>)
      return make<T>(a, b);
    else
      return T{a, b};
  }
};
template <typename A, typename B, typename C>
struct Braced<A, B, C> {
  A a;
  B b;
  C c;
  template <typename T>
  constexpr operator T() const {
    if constexpr (is_vector<T>)
      return make<T>(a, b, c);
    else
      return T{a, b, c};
  }
};
template <typename A, typename B, typename C, typename D>
struct Braced<A, B, C, D> {
  A a;
  B b;
  C c;
  D d;
  template <typename T>
  constexpr operator T() const {
    if constexpr (is_vector<T>)
      return make<T>(a, b, c, d);
    else
      return T{a, b, c, d};
  }
};
template <typename... A>
constexpr Braced<A...> braced(A... a) {
  return {a...};
}

}  // namespace softmetal

#include "softmetal_bools.h"

template <typename T, typename A>
constexpr T as_type(A a) {
  static_assert(sizeof(T) == sizeof(A), "as_type needs two types of one size");
  return __builtin_bit_cast(T, a);
}
