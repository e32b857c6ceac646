// bool2, bool3, bool4 with a byte an element, and comparisons of vectors that give them. To clang
// such a comparison is an integer vector; the front end marks those in the user's text.
#pragma once
#include "softmetal_types.h"

namespace softmetal {

template <int N>
struct Bools;

/// Some elements of a bool vector, by position.
template <int... I>
struct BoolSwizzle {
  bool softmetal_elements[sizeof...(I) == 0 ? 1 : 4];
  operator Bools<int(sizeof...(I))>() const { return {softmetal_elements[I]...}; }
  bool operator[](int i) const {
    constexpr int at[] = {I...};
    return softmetal_elements[at[i]];
  }
  BoolSwizzle& operator=(Bools<int(sizeof...(I))> from) {
    int at = 0;
    ((softmetal_elements[I] = from[at++]), ...);
    return *this;
  }
};

#define SOFTMETAL_BOOL_COMMON(N)                                                     \
  Bools() = default;                                                                 \
  constexpr Bools(bool b) : softmetal_elements{} {                                   \
    for (int i = 0; i < N; ++i) softmetal_elements[i] = b;                           \
  }                                                                                  \
  template <typename T, typename = when<!is_floating<T>>>                            \
  constexpr Bools(metal::vec<T, N> v) : softmetal_elements{} {                       \
    for (int i = 0; i < N; ++i) softmetal_elements[i] = bool(v[i]);                  \
  }                                                                                  \
  operator metal::vec<bool, N>() const {                                             \
    metal::vec<bool, N> v{};                                                         \
    for (int i = 0; i < N; ++i) v[i] = softmetal_elements[i];                        \
    return v;                                                                        \
  }                                                                                  \
  constexpr bool& operator[](int i) { return softmetal_elements[i]; }                \
  constexpr bool operator[](int i) const { return softmetal_elements[i]; }           \
  friend constexpr Bools operator!(Bools a) {                                        \
    for (int i = 0; i < N; ++i) a.softmetal_elements[i] = !a.softmetal_elements[i];  \
    return a;                                                                        \
  }                                                                                  \
  SOFTMETAL_BOOL_OPERATOR(N, &&, a.softmetal_elements[i] && b.softmetal_elements[i]) \
  SOFTMETAL_BOOL_OPERATOR(N, ||, a.softmetal_elements[i] || b.softmetal_elements[i]) \
  SOFTMETAL_BOOL_OPERATOR(N, &, a.softmetal_elements[i] && b.softmetal_elements[i])  \
  SOFTMETAL_BOOL_OPERATOR(N, |, a.softmetal_elements[i] || b.softmetal_elements[i])  \
  SOFTMETAL_BOOL_OPERATOR(N, ^, a.softmetal_elements[i] != b.softmetal_elements[i])  \
  SOFTMETAL_BOOL_OPERATOR(N, ==, a.softmetal_elements[i] == b.softmetal_elements[i]) \
  SOFTMETAL_BOOL_OPERATOR(N, !=, a.softmetal_elements[i] != b.softmetal_elements[i]) \
  constexpr Bools& operator&=(Bools b) { return *this = *this & b; }                 \
  constexpr Bools& operator|=(Bools b) { return *this = *this | b; }                 \
  constexpr Bools& operator^=(Bools b) { return *this = *this ^ b; }
#define SOFTMETAL_BOOL_OPERATOR(N, op, expression)                      \
  friend constexpr Bools operator op(Bools a, Bools b) {                \
    for (int i = 0; i < N; ++i) a.softmetal_elements[i] = (expression); \
    return a;                                                           \
  }
#define SOFTMETAL_BOOL_PAIRS(a, A, b, B) \
  BoolSwizzle<A, A> a##a;                \
  BoolSwizzle<A, B> a##b;                \
  BoolSwizzle<B, A> b##a;                \
  BoolSwizzle<B, B> b##b;

template <>
struct Bools<2> {
  union {
    bool softmetal_elements[2];
    struct {
      bool x, y;
    };
    struct {
      bool r, g;
    };
    SOFTMETAL_BOOL_PAIRS(x, 0, y, 1)
  };
  constexpr Bools(bool a, bool b) : softmetal_elements{a, b} {}
  SOFTMETAL_BOOL_COMMON(2)
};
template <>
struct alignas(4) Bools<3> {
  union {
    bool softmetal_elements[3];
    struct {
      bool x, y, z;
    };
    struct {
      bool r, g, b;
    };
    SOFTMETAL_BOOL_PAIRS(x, 0, y, 1)
    BoolSwizzle<0, 2> xz;
    BoolSwizzle<1, 2> yz;
    BoolSwizzle<2, 0> zx;
    BoolSwizzle<2, 1> zy;
    BoolSwizzle<2, 2> zz;
    BoolSwizzle<0, 1, 2> xyz;
    BoolSwizzle<2, 1, 0> zyx;
    BoolSwizzle<1, 2, 0> yzx;
    BoolSwizzle<2, 0, 1> zxy;
  };
  constexpr Bools(bool a, bool b, bool c) : softmetal_elements{a, b, c} {}
  SOFTMETAL_BOOL_COMMON(3)
};
template <>
struct alignas(4) Bools<4> {
  union {
    bool softmetal_elements[4];
    struct {
      bool x, y, z, w;
    };
    struct {
      bool r, g, b, a;
    };
    SOFTMETAL_BOOL_PAIRS(x, 0, y, 1)
    SOFTMETAL_BOOL_PAIRS(z, 2, w, 3)
    BoolSwizzle<0, 2> xz;
    BoolSwizzle<0, 3> xw;
    BoolSwizzle<1, 2> yz;
    BoolSwizzle<1, 3> yw;
    BoolSwizzle<2, 0> zx;
    BoolSwizzle<2, 1> zy;
    BoolSwizzle<3, 0> wx;
    BoolSwizzle<3, 1> wy;
    BoolSwizzle<0, 1> lo;
    BoolSwizzle<2, 3> hi;
    BoolSwizzle<0, 1, 2> xyz;
    BoolSwizzle<1, 2, 3> yzw;
    BoolSwizzle<3, 2, 1, 0> wzyx;
    BoolSwizzle<0, 1, 2, 3> xyzw;
  };
  constexpr Bools(bool a, bool b, bool c, bool d) : softmetal_elements{a, b, c, d} {}
  SOFTMETAL_BOOL_COMMON(4)
};
#undef SOFTMETAL_BOOL_COMMON
#undef SOFTMETAL_BOOL_OPERATOR
#undef SOFTMETAL_BOOL_PAIRS

template <int N>
struct Shape<Bools<N>> {
  using Element = bool;
  static constexpr int width = N;
};

template <int... I>
struct Shape<BoolSwizzle<I...>> {
  using Element = bool;
  static constexpr int width = int(sizeof...(I));
};
template <int... I>
Bools<int(sizeof...(I))> softmetal_unpacked(BoolSwizzle<I...> s) {
  return s;
}
template <int... I>
Bools<int(sizeof...(I))> operator!(BoolSwizzle<I...> s) {
  return !softmetal_unpacked(s);
}
template <int... I, typename B>
Bools<int(sizeof...(I))> operator&&(BoolSwizzle<I...> s, B b) {
  return softmetal_unpacked(s) && b;
}
template <int... I, typename B>
Bools<int(sizeof...(I))> operator||(BoolSwizzle<I...> s, B b) {
  return softmetal_unpacked(s) || b;
}

/// a < b is written as a < compared < b where vectors are compared.
struct Compared {};
inline constexpr Compared compared{};
template <typename T>
struct Left {
  T value;
};
/// A scalar beside a vector is spread out.
template <typename V, typename A>
constexpr auto beside(A a) {
  if constexpr (is_vector<V> && is_scalar<A>) {
    return make<V>(a);
  } else {
    return a;
  }
}
template <typename R>
constexpr auto relation(R r) {
  if constexpr (is_vector<R> && !same<element_t<R>, bool>) {
    return Bools<Shape<R>::width>(r);
  } else {
    return r;
  }
}
#define SOFTMETAL_COMPARISON(op)                         \
  template <typename T>                                  \
  constexpr Left<T> operator op(T a, Compared) {         \
    return {a};                                          \
  }                                                      \
  template <typename T, typename U>                      \
  constexpr auto operator op(Left<T> a, U b) {           \
    return relation(beside<U>(a.value) op beside<T>(b)); \
  }
SOFTMETAL_COMPARISON(<)
SOFTMETAL_COMPARISON(>)
SOFTMETAL_COMPARISON(<=)
SOFTMETAL_COMPARISON(>=)
SOFTMETAL_COMPARISON(==)
SOFTMETAL_COMPARISON(!=)
#undef SOFTMETAL_COMPARISON

}  // namespace softmetal

using bool2 = softmetal::Bools<2>;
using bool3 = softmetal::Bools<3>;
using bool4 = softmetal::Bools<4>;
namespace metal {
using ::bool2;
using ::bool3;
using ::bool4;
}  // namespace metal
