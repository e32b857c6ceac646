// <metal_matrix>: float2x2 to float4x4 and half, by columns.
#pragma once
#include "softmetal_math.h"

namespace metal {

template <typename T, int C, int R>
struct matrix {
  static_assert(softmetal::is_floating<T> && C >= 2 && C <= 4 && R >= 2 && R <= 4,
                "a matrix has 2 to 4 columns and rows of float or half");
  using Column = vec<T, R>;

  matrix() = default;
  /// The diagonal, zeros beside it.
  constexpr explicit matrix(T diagonal) : columns{} {
    for (int i = 0; i < (C < R ? C : R); ++i) columns[i][i] = diagonal;
  }
  template <typename... A, typename = softmetal::when<sizeof...(A) == C - 1>>
  constexpr matrix(Column first, A... others) : columns{first, Column(others)...} {}
  /// All elements, column by column.
  template <typename... A, typename = softmetal::when<sizeof...(A) == C * R - 1>, typename = void>
  constexpr matrix(T first, A... others) : columns{} {
    const T all[] = {first, static_cast<T>(others)...};
    for (int i = 0; i < C * R; ++i) columns[i / R][i % R] = all[i];
  }
  template <typename U, typename = softmetal::when<!softmetal::same<T, U>>>
  constexpr explicit matrix(matrix<U, C, R> m) : columns{} {
    for (int i = 0; i < C; ++i) columns[i] = softmetal::convert<Column>(m.columns[i]);
  }

  constexpr Column& operator[](int i) { return columns[i]; }
  constexpr const Column& operator[](int i) const { return columns[i]; }

  constexpr matrix& operator+=(matrix m) { return *this = *this + m; }
  constexpr matrix& operator-=(matrix m) { return *this = *this - m; }
  constexpr matrix& operator*=(T s) { return *this = *this * s; }
  constexpr matrix& operator*=(matrix<T, C, C> m) { return *this = *this * m; }

  friend constexpr matrix operator+(matrix a, matrix b) {
    for (int i = 0; i < C; ++i) a.columns[i] += b.columns[i];
    return a;
  }
  friend constexpr matrix operator-(matrix a, matrix b) {
    for (int i = 0; i < C; ++i) a.columns[i] -= b.columns[i];
    return a;
  }
  friend constexpr matrix operator-(matrix a) {
    for (int i = 0; i < C; ++i) a.columns[i] = -a.columns[i];
    return a;
  }
  friend constexpr matrix operator*(matrix a, T s) {
    for (int i = 0; i < C; ++i) a.columns[i] *= s;
    return a;
  }
  friend constexpr matrix operator*(T s, matrix a) { return a * s; }
  friend constexpr Column operator*(matrix a, vec<T, C> v) {
    Column sum = a.columns[0] * v[0];
    for (int i = 1; i < C; ++i) sum += a.columns[i] * v[i];
    return sum;
  }
  friend constexpr vec<T, C> operator*(Column v, matrix a) {
    vec<T, C> out{};
    for (int i = 0; i < C; ++i) out[i] = dot(v, a.columns[i]);
    return out;
  }
  friend constexpr bool operator==(matrix a, matrix b) {
    bool equal = true;
    for (int i = 0; i < C * R; ++i) equal &= a.columns[i / R][i % R] == b.columns[i / R][i % R];
    return equal;
  }
  friend constexpr bool operator!=(matrix a, matrix b) { return !(a == b); }

  Column columns[C];
};

template <typename T, int K, int R, int C>
constexpr matrix<T, C, R> operator*(matrix<T, K, R> a, matrix<T, C, K> b) {
  matrix<T, C, R> out;
  for (int i = 0; i < C; ++i) out.columns[i] = a * b.columns[i];
  return out;
}
template <typename T, int C, int R>
constexpr matrix<T, R, C> transpose(matrix<T, C, R> m) {
  matrix<T, R, C> out;
  for (int i = 0; i < C * R; ++i) out.columns[i % R][i / R] = m.columns[i / R][i % R];
  return out;
}
template <typename T>
constexpr T determinant(matrix<T, 2, 2> m) {
  return m.columns[0].x * m.columns[1].y - m.columns[1].x * m.columns[0].y;
}
template <typename T>
constexpr T determinant(matrix<T, 3, 3> m) {
  return dot(m.columns[0], cross(m.columns[1], m.columns[2]));
}
/// By the 2x2 minors of the upper and lower halves.
template <typename T>
constexpr T determinant(matrix<T, 4, 4> m) {
  const auto minor = [&](int a, int b, int row) {
    return m.columns[a][row] * m.columns[b][row + 1] - m.columns[b][row] * m.columns[a][row + 1];
  };
  return minor(0, 1, 0) * minor(2, 3, 2) - minor(0, 2, 0) * minor(1, 3, 2) +
         minor(0, 3, 0) * minor(1, 2, 2) + minor(1, 2, 0) * minor(0, 3, 2) -
         minor(1, 3, 0) * minor(0, 2, 2) + minor(2, 3, 0) * minor(0, 1, 2);
}
}  // namespace metal

#define SOFTMETAL_MATRICES(T)            \
  using T##2x2 = metal::matrix<T, 2, 2>; \
  using T##2x3 = metal::matrix<T, 2, 3>; \
  using T##2x4 = metal::matrix<T, 2, 4>; \
  using T##3x2 = metal::matrix<T, 3, 2>; \
  using T##3x3 = metal::matrix<T, 3, 3>; \
  using T##3x4 = metal::matrix<T, 3, 4>; \
  using T##4x2 = metal::matrix<T, 4, 2>; \
  using T##4x3 = metal::matrix<T, 4, 3>; \
  using T##4x4 = metal::matrix<T, 4, 4>;
SOFTMETAL_MATRICES(float)
SOFTMETAL_MATRICES(half)
namespace metal {
#define SOFTMETAL_NAMES(T) \
  using ::T##2x2;          \
  using ::T##2x3;          \
  using ::T##2x4;          \
  using ::T##3x2;          \
  using ::T##3x3;          \
  using ::T##3x4;          \
  using ::T##4x2;          \
  using ::T##4x3;          \
  using ::T##4x4;
SOFTMETAL_NAMES(float)
SOFTMETAL_NAMES(half)
#undef SOFTMETAL_NAMES
}  // namespace metal
#undef SOFTMETAL_MATRICES
