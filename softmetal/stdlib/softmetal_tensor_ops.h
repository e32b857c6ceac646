// <metal_tensor>, <MetalPerformancePrimitives>: matmul2d on cooperative tensors and on tensors in
// memory, by one simdgroup or several. Where an element of a cooperative tensor lies is not
// documented by Apple: programs must ask. SOFTMETAL_LAYOUT chooses among layouts.
#pragma once
#include "softmetal_matrix.h"
#include "softmetal_traits.h"

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

namespace softmetal {

/// Where element `e` of a lane lies in a matrix of 16x16 blocks that `groups` simdgroups share.
template <int rows, int columns, int groups>
struct Shared {
  static constexpr int blocks = rows / 16 * (columns / 16);
  static constexpr int each = (blocks + groups - 1) / groups;
  static constexpr int capacity = each * 8;

  static int block(int e) {
    const int group = groups == 1 ? 0 : int(softmetal_runtime->thread_index() / 32) % groups;
#if SOFTMETAL_LAYOUT == 0
    return group * each + e / 8;
#else
    return e / 8 * groups + group;
#endif
  }
  static bool valid(int e) { return e >= 0 && e < capacity && block(e) < blocks; }
  static Place place(int e) {
    return cooperative_place<rows, columns>(own_lane(), block(e) * 8 + e % 8);
  }
};

template <typename T>
inline constexpr bool is_memory_tensor = false;

}  // namespace softmetal

namespace metal {
struct execution_thread {};
struct execution_simdgroup {};
/// That many simdgroups of the threadgroup work together; all of them must take part.
template <int n>
struct execution_simdgroups {};

struct tensor_handle {};
struct tensor_inline {};
struct tensor_offset {};
inline constexpr size_t dynamic_extent = ~size_t(0);

/// Sizes, columns first.
template <typename I, size_t rank>
struct dextents {
  static_assert(rank == 2, "tensors have two dimensions here");
  using index_type = I;
  constexpr dextents() = default;
  constexpr dextents(I columns, I rows) : softmetal_sizes{columns, rows} {}
  constexpr I extent(int i) const { return softmetal_sizes[i]; }
  I softmetal_sizes[2] = {};
};
template <typename I, size_t... sizes>
struct extents {
  static_assert(sizeof...(sizes) == 2, "tensors have two dimensions here");
  using index_type = I;
  constexpr I extent(int i) const {
    constexpr I all[] = {I(sizes)...};
    return all[i];
  }
  constexpr operator dextents<I, 2>() const { return {extent(0), extent(1)}; }
};

/// A matrix in device or threadgroup memory. What lies outside of its extents reads as zero and is
/// not written.
template <typename T, typename Extents, typename Kind = tensor_inline>
struct tensor {
  using element_type = softmetal::plain_t<T>;
  using index_type = typename Extents::index_type;

  template <typename E>
  tensor(T* data, E sizes)
      : softmetal_data(data), columns(sizes.extent(0)), rows(sizes.extent(1)), stride(columns) {}
  template <typename E, typename I>
  tensor(T* data, E sizes, array<I, 2> strides)
      : softmetal_data(data),
        columns(sizes.extent(0)),
        rows(sizes.extent(1)),
        step(long(strides[0])),
        stride(long(strides[1])) {}

  dextents<index_type, 2> extents() const { return {index_type(columns), index_type(rows)}; }
  index_type get_extent(int i) const { return index_type(i == 0 ? columns : rows); }

  /// The part from (column, row) on.
  tensor<T, dextents<index_type, 2>, tensor_offset> slice(long column, long row) const {
    tensor<T, dextents<index_type, 2>, tensor_offset> part(
        softmetal_data + column * step + row * stride, dextents<index_type, 2>());
    part.columns = columns - column;
    part.rows = rows - row;
    part.step = step;
    part.stride = stride;
    return part;
  }
  template <int width, int height>
  tensor<T, dextents<index_type, 2>, tensor_offset> slice(long column, long row) const {
    auto part = slice(column, row);
    part.columns = part.columns < width ? part.columns : width;
    part.rows = part.rows < height ? part.rows : height;
    return part;
  }

  element_type softmetal_get(long column, long row) const {
    const bool inside = column >= 0 && row >= 0 && column < columns && row < rows;
    return inside ? softmetal_data[column * step + row * stride] : element_type(0);
  }
  void softmetal_put(long column, long row, element_type x) const {
    const bool inside = column >= 0 && row >= 0 && column < columns && row < rows;
    if (inside) softmetal_data[column * step + row * stride] = x;
  }

  T* softmetal_data;
  long columns, rows, step = 1, stride;
};
template <typename T, typename E>
tensor(T*, E) -> tensor<T, E, tensor_inline>;
template <typename T, typename E, typename I>
tensor(T*, E, array<I, 2>) -> tensor<T, E, tensor_inline>;

/// The share that one thread has of a matrix.
template <typename T, int matrix_rows, int matrix_columns, int groups = 1>
struct cooperative_tensor {
  using element_type = T;
  using softmetal_shared = softmetal::Shared<matrix_rows, matrix_columns, groups>;
  static constexpr ushort get_capacity() { return ushort(softmetal_shared::capacity); }
  static bool is_valid_element(int i) { return softmetal_shared::valid(i); }
  thread T& operator[](int i) { return softmetal_elements[i]; }
  const thread T& operator[](int i) const { return softmetal_elements[i]; }
  /// Column first, as tensors index.
  array<int, 2> get_multidimensional_index(int i) const {
    const auto at = softmetal_shared::place(i);
    return {at.column, at.row};
  }
  template <typename Tensor>
  void load(const thread Tensor& from, uint site = SOFTMETAL_SITE) {
    softmetal::all_present(site);
    for (int i = 0; i < get_capacity(); ++i) {
      if (!is_valid_element(i)) continue;
      const auto at = softmetal_shared::place(i);
      softmetal_elements[i] = T(from.softmetal_get(at.column, at.row));
    }
  }
  template <typename Tensor>
  void store(const thread Tensor& to, uint site = SOFTMETAL_SITE) const {
    softmetal::all_present(site);
    for (int i = 0; i < get_capacity(); ++i) {
      if (!is_valid_element(i)) continue;
      const auto at = softmetal_shared::place(i);
      to.softmetal_put(at.column, at.row, typename Tensor::element_type(softmetal_elements[i]));
    }
  }

  T softmetal_elements[softmetal_shared::capacity];
};
}  // namespace metal

namespace softmetal {
template <typename T, typename E, typename K>
inline constexpr bool is_memory_tensor<metal::tensor<T, E, K>> = true;
template <typename T, typename E, typename K>
inline constexpr bool is_memory_tensor<const metal::tensor<T, E, K>> = true;

template <typename Scope>
inline constexpr int simdgroups_of = 0;
template <>
inline constexpr int simdgroups_of<metal::execution_simdgroup> = 1;
template <int n>
inline constexpr int simdgroups_of<metal::execution_simdgroups<n>> = n;
}  // namespace softmetal

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

template <typename T>
inline constexpr T dynamic_length_v = T(-1);
using metal::dynamic_extent;

template <matmul2d_descriptor d, typename Scope>
struct matmul2d {
  static constexpr int groups = softmetal::simdgroups_of<Scope>;
  static_assert(groups > 0, "matmul2d runs on execution_simdgroup or execution_simdgroups<n> here");
  static_assert(d.m % 16 == 0 && d.n % 16 == 0 && (d.k == -1 || d.k % 16 == 0),
                "matmul2d sizes are multiples of 16");
  template <typename A, typename B, typename C>
  static auto get_left_input_cooperative_tensor() {
    static_assert(groups == 1, "cooperative inputs belong to one simdgroup");
    return metal::cooperative_tensor<A, d.transpose_left ? d.k : d.m,
                                     d.transpose_left ? d.m : d.k>{};
  }
  template <typename A, typename B, typename C>
  static auto get_right_input_cooperative_tensor() {
    static_assert(groups == 1, "cooperative inputs belong to one simdgroup");
    return metal::cooperative_tensor<B, d.transpose_right ? d.n : d.k,
                                     d.transpose_right ? d.k : d.n>{};
  }
  template <typename LeftTensor, typename RightTensor, typename C>
  static auto get_destination_cooperative_tensor() {
    return metal::cooperative_tensor<C, d.m, d.n, groups>{};
  }

  template <typename LeftTensor, typename RightTensor, typename Destination>
  void run(const thread LeftTensor& a, const thread RightTensor& b, const thread Destination& c,
           uint site = SOFTMETAL_SITE) const {
    static_assert(softmetal::is_memory_tensor<Destination>, "the destination is constant");
    multiply(a, b, c, site);
  }
  template <typename LeftTensor, typename RightTensor, typename Destination>
  void run(const thread LeftTensor& a, const thread RightTensor& b, thread Destination& c,
           uint site = SOFTMETAL_SITE) const {
    multiply(a, b, c, site);
  }

 private:
  static constexpr bool accumulates =
      d.matmul_mode == matmul2d_descriptor::mode::multiply_accumulate;

  template <typename LeftTensor, typename RightTensor, typename Destination>
  static void multiply(const thread LeftTensor& a, const thread RightTensor& b,
                       thread Destination& c, uint site) {
    if constexpr (softmetal::is_memory_tensor<LeftTensor> &&
                  softmetal::is_memory_tensor<RightTensor>) {
      from_memory(a, b, c, site);
    } else if constexpr (softmetal::is_memory_tensor<LeftTensor>) {
      auto mine = get_left_input_cooperative_tensor<typename LeftTensor::element_type, int, int>();
      mine.load(a, site);
      multiply(mine, b, c, site);
    } else if constexpr (softmetal::is_memory_tensor<RightTensor>) {
      auto mine =
          get_right_input_cooperative_tensor<int, typename RightTensor::element_type, int>();
      mine.load(b, site);
      multiply(a, mine, c, site);
    } else if constexpr (softmetal::is_memory_tensor<Destination>) {
      auto sum = get_destination_cooperative_tensor<int, int, typename Destination::element_type>();
      if constexpr (accumulates) sum.load(c, site);
      multiply(a, b, sum, site);
      sum.store(c, site);
    } else {
      softmetal::Product2 record{a.softmetal_elements, b.softmetal_elements, c.softmetal_elements};
      softmetal::meet(&record,
                      &softmetal::multiply2<typename LeftTensor::element_type,
                                            typename RightTensor::element_type,
                                            typename Destination::element_type, d.m, d.n, d.k,
                                            d.transpose_left, d.transpose_right, accumulates>,
                      site, softmetal_abi::collective_full);
    }
  }

  /// Every thread computes its share of the destination from memory.
  template <typename LeftTensor, typename RightTensor, typename Destination>
  static void from_memory(const thread LeftTensor& a, const thread RightTensor& b,
                          thread Destination& c, uint site) {
    using A = typename LeftTensor::element_type;
    using B = typename RightTensor::element_type;
    using C = typename Destination::element_type;
    using Sum =
        metal::conditional_t<softmetal::is_integer<A> && softmetal::is_integer<B>, int, float>;
    using Shared = softmetal::Shared<d.m, d.n, groups>;
    softmetal::all_present(site);
    const long length = d.k != -1 ? d.k : long(d.transpose_left ? a.rows : a.columns);
    if (softmetal::own_lane() == 0) {
      softmetal_runtime->count_matrix(
          softmetal_abi::u32(d.m / 8 * (d.n / 8) * (length / 8) / groups));
    }
    for (int e = 0; e < Shared::capacity; ++e) {
      if (!Shared::valid(e)) continue;
      const auto at = Shared::place(e);
      Sum sum = 0;
      if constexpr (accumulates) {
        if constexpr (softmetal::is_memory_tensor<Destination>) {
          sum = Sum(c.softmetal_get(at.column, at.row));
        } else {
          sum = Sum(c[e]);
        }
      }
      for (long k = 0; k < length; ++k) {
        const auto x = d.transpose_left ? a.softmetal_get(at.row, k) : a.softmetal_get(k, at.row);
        const auto y =
            d.transpose_right ? b.softmetal_get(k, at.column) : b.softmetal_get(at.column, k);
        sum += Sum(x) * Sum(y);
      }
      if constexpr (softmetal::is_memory_tensor<Destination>) {
        c.softmetal_put(at.column, at.row, C(sum));
      } else {
        c[e] = C(sum);
      }
    }
  }
};

}  // namespace mpp::tensor_ops
#endif
