// <MetalPerformancePrimitives>: matmul2d on cooperative tensors of one simdgroup. Where an element
// lies is not documented by Apple: programs must ask. SOFTMETAL_LAYOUT chooses among layouts.
#pragma once
#include "softmetal_matrix.h"

#ifndef SOFTMETAL_LAYOUT
#define SOFTMETAL_LAYOUT 0
#endif

inline ushort __metal_get_thread_index_in_simdgroup(ushort) {
  return ushort(softmetal::own_lane());
}

namespace softmetal {

/// Row and column of element `e` of lane `l` in a matrix of 16x16 blocks.
template <int rows, int columns>
constexpr Place cooperative_place(int l, int e) {
  constexpr int across = columns / 16;
  const int block = e / 8, row0 = block / across * 16, column0 = block % across * 16;
  const int quad = l / 4, i = e % 8;
#if SOFTMETAL_LAYOUT == 0
  // As programs for the M5 assume it.
  return {row0 + ((quad & 4) | (l / 2 & 3)) + i / 4 * 8,
          column0 + ((quad & 2) | (l & 1)) * 4 + i % 4};
#else
  // Deliberately another: pairs of rows by lane.
  return {row0 + l / 2, column0 + l % 2 * 8 + i};
#endif
}

struct Product2 {
  const void* a;
  const void* b;
  void* c;
};

template <typename A, typename B, typename C, int m, int n, int k, bool ta, bool tb, bool add>
void multiply2(void* const* lanes, u32 mask) {
  softmetal_runtime->count_matrix(u32(m / 8 * (n / 8) * (k / 8)));
  float a[m][k] = {}, b[k][n] = {}, c[m][n] = {};
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    const auto& r = *static_cast<const Product2*>(lanes[l]);
    for (int e = 0; e < m * k / 32; ++e) {
      const Place at = ta ? cooperative_place<k, m>(l, e) : cooperative_place<m, k>(l, e);
      (ta ? a[at.column][at.row] : a[at.row][at.column]) = float(static_cast<const A*>(r.a)[e]);
    }
    for (int e = 0; e < k * n / 32; ++e) {
      const Place at = tb ? cooperative_place<n, k>(l, e) : cooperative_place<k, n>(l, e);
      (tb ? b[at.column][at.row] : b[at.row][at.column]) = float(static_cast<const B*>(r.b)[e]);
    }
    for (int e = 0; e < m * n / 32; ++e) {
      const Place at = cooperative_place<m, n>(l, e);
      if (add) c[at.row][at.column] = float(static_cast<C*>(r.c)[e]);
    }
  }
  for (int i = 0; i < m; ++i) {
    for (int p = 0; p < k; ++p) {
      for (int j = 0; j < n; ++j) c[i][j] = __builtin_fmaf(a[i][p], b[p][j], c[i][j]);
    }
  }
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    const auto& r = *static_cast<const Product2*>(lanes[l]);
    for (int e = 0; e < m * n / 32; ++e) {
      const Place at = cooperative_place<m, n>(l, e);
      static_cast<C*>(r.c)[e] = C(c[at.row][at.column]);
    }
  }
}

}  // namespace softmetal

namespace metal {
struct execution_simdgroup {};
struct execution_thread {};

/// The share that one thread has of a matrix.
template <typename T, int rows, int columns>
struct cooperative_tensor {
  using element_type = T;
  static constexpr ushort get_capacity() { return ushort(rows * columns / 32); }
  static constexpr bool is_valid_element(int i) { return i >= 0 && i < get_capacity(); }
  thread T& operator[](int i) { return softmetal_elements[i]; }
  const thread T& operator[](int i) const { return softmetal_elements[i]; }
  /// Column first, as tensors index.
  array<int, 2> get_multidimensional_index(int i) const {
    const auto at = softmetal::cooperative_place<rows, columns>(softmetal::own_lane(), i);
    return {at.column, at.row};
  }

  T softmetal_elements[rows * columns / 32];
};
}  // namespace metal

#if __cplusplus >= 202002L
namespace mpp::tensor_ops {

struct matmul2d_descriptor {
  enum class mode { multiply, multiply_accumulate };
  constexpr matmul2d_descriptor(int m_, int n_, int k_, bool left = false, bool right = false,
                                bool relaxed = false, mode how = mode::multiply)
      : m(m_),
        n(n_),
        k(k_),
        transpose_left(left),
        transpose_right(right),
        relaxed_precision(relaxed),
        matmul_mode(how) {}
  int m, n, k;
  bool transpose_left, transpose_right, relaxed_precision;
  mode matmul_mode;
};

template <matmul2d_descriptor d, typename Scope>
struct matmul2d {
  static_assert(softmetal::same<Scope, metal::execution_simdgroup>,
                "matmul2d runs on one simdgroup here");
  static_assert(d.m % 16 == 0 && d.n % 16 == 0 && d.k % 16 == 0,
                "matmul2d sizes are multiples of 16");
  template <typename A, typename B, typename C>
  static auto get_left_input_cooperative_tensor() {
    return metal::cooperative_tensor<A, d.transpose_left ? d.k : d.m,
                                     d.transpose_left ? d.m : d.k>{};
  }
  template <typename A, typename B, typename C>
  static auto get_right_input_cooperative_tensor() {
    return metal::cooperative_tensor<B, d.transpose_right ? d.n : d.k,
                                     d.transpose_right ? d.k : d.n>{};
  }
  template <typename LeftTensor, typename RightTensor, typename C>
  static auto get_destination_cooperative_tensor() {
    return metal::cooperative_tensor<C, d.m, d.n>{};
  }
  template <typename LeftTensor, typename RightTensor, typename Destination>
  void run(const thread LeftTensor& a, const thread RightTensor& b, thread Destination& c,
           uint site = SOFTMETAL_SITE) const {
    softmetal::Product2 record{a.softmetal_elements, b.softmetal_elements, c.softmetal_elements};
    softmetal::meet(&record, &softmetal::multiply2 < typename LeftTensor::element_type,
                    typename RightTensor::element_type, typename Destination::element_type, d.m,
                    d.n, d.k, d.transpose_left, d.transpose_right,
                    d.matmul_mode == matmul2d_descriptor::mode::multiply_accumulate >, site,
                    softmetal_abi::collective_full);
  }
};

}  // namespace mpp::tensor_ops
#endif
