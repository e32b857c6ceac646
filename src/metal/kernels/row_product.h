// The product of two rows by plain loops, where matrix operations do not fit.
#pragma once
#include "metal/kernels/tile.h"

namespace ingot {

/// A part of the product of two rows of `dim` columns: packs of n from column `first` on, `step`
/// apart.
template <int dim, int n, int step, class A, class B>
inline float part_of_product(A a, int row_a, B b, int row_b, int first) {
  float sum = 0.0f;
  for (int col = first; col < dim; col += step) {
    Pack<typename A::Element, n> x = zero_pack<typename A::Element, n>();
    Pack<typename B::Element, n> y = zero_pack<typename B::Element, n>();
    if (col + n <= dim) {
      x = a.template get<n>(row_a, col), y = b.template get<n>(row_b, col);
    } else {
      x = a.template get_below<n>(row_a, col, dim), y = b.template get_below<n>(row_b, col, dim);
    }
    INGOT_UNROLL for (int i = 0; i < n; ++i) {
      sum = metal::fma(from_memory<float>(x.of[i]), from_memory<float>(y.of[i]), sum);
    }
  }
  return sum;
}

}  // namespace ingot
