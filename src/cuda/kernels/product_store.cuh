// The end of a tile of product_sm90: sums to memory, with those of the chunks before.
#pragma once

#include "cuda/kernels/product_shape.cuh"
#include "cuda/kernels/store_columns.cuh"

namespace ingot {

// Adds the sums of the chunks before, or leaves these for the next.
template <bool Add, int Count>
INGOT_FN void exchange_row(float* row, int dim, bool valid, float (&sum)[Count], int h) {
  const float mark = Add ? 0.0f : unless_marked(0.0f);
#pragma unroll
  for (int i = 0; i < Count / 4; ++i) {
    const int column = 8 * i + 2 * (threadIdx.x % 4);
    if (!valid || column >= dim) continue;
    float* const x = &sum[4 * i + 2 * h];
    if (Add) {
      const float2 before = *reinterpret_cast<const float2*>(row + column);
      x[0] += before.x;
      x[1] += before.y;
    } else {
      store_pair(row + column, 1, true, true, x[0] + mark, x[1] + mark);
    }
  }
}

// 64 rows of a warpgroup, the first at `row`.
template <class Config, int Count>
INGOT_FN void store_product(const ProductParams& params, const ProductTile& tile, int row,
                            float (&sum)[Count]) {
  using Output = typename Config::output;
  const int thread = threadIdx.x % 128;
  row += thread / 32 * 16 + thread % 32 / 4;
  const int dim = params.dim - tile.column;
#pragma unroll
  for (int h = 0; h < 2; ++h, row += 8) {
    const bool valid = row < tile.rows_end;
    const Index place = tile.head * params.partial_head +
                        static_cast<Index>(row) * params.partial_pitch + tile.column;
    if (params.add != nullptr) {
      exchange_row<true>(const_cast<float*>(params.add) + place, dim, valid, sum, h);
    }
    if (params.partial != nullptr) {
      exchange_row<false>(params.partial + place, dim, valid, sum, h);
      continue;
    }
    Output* const out = static_cast<Output*>(params.out) + tile.batch * params.out_stride[0] +
                        tile.head_in_batch * params.out_stride[1] + row * params.out_stride[2] +
                        tile.column * params.out_stride[3];
    store_columns(out, dim, params.out_stride[3], params.out_vector, valid, sum, h, params.factor);
  }
}

}  // namespace ingot
