// The end of a tile of product_sm90: sums to memory, with those of the chunks before.
#pragma once

#include "cuda/kernels/forward_store.cuh"
#include "cuda/kernels/product_shape.cuh"

namespace ingot {

INGOT_FN void store_two(float* to, float x, float y) {
  asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x), "f"(y) : "memory");
}

// One row of this thread (h = 0 or 1), called by whole warps; columns past `dim` are left alone.
template <class Output, int Count>
INGOT_FN void store_product_row(const ProductParams& params, Output* row, int dim, bool valid,
                                const float (&sum)[Count], int h) {
  constexpr int blocks = Count / 4;  // of 8 columns
  constexpr int wide = sizeof(Output) == 2 ? blocks / 4 * 4 : 0;
  const bool vectors = wide > 0 && params.out_vector == 8;
  const int lane = threadIdx.x % 4;
  const Index step = params.out_stride[3];
  const auto x = [&](int block, int c) { return sum[4 * block + 2 * h + c] * params.factor; };
#pragma unroll
  for (int i = 0; i < blocks; ++i) {
    if constexpr (wide > 0) {
      if (vectors && i < wide) {
        if (i % 4 != 0) continue;
        u32 packed[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) packed[j] = pack<Output>(x(i + j, 0), x(i + j, 1));
        transpose_quad(packed);
        if (valid && 8 * (i + lane) < dim) store_16_bytes(row + 8 * (i + lane), packed);
        continue;
      }
    }
    const int column = 8 * i + 2 * lane;
    if (!valid || column >= dim) continue;
    if (sizeof(Output) == 4 && params.out_vector >= 2 && column + 1 < dim) {
      store_two(reinterpret_cast<float*>(row + column), x(i, 0), x(i, 1));
    } else {
      store_pair(row + column * step, step, params.out_vector >= 2, column + 1 < dim, x(i, 0),
                 x(i, 1));
    }
  }
}

// Adds the sums of the chunks before, or leaves these for the next.
template <bool Add, int Count>
INGOT_FN void exchange_row(float* row, int dim, bool valid, float (&sum)[Count], int h) {
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
      store_two(row + column, x[0], x[1]);
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
    store_product_row(params, out, dim, valid, sum, h);
  }
}

}  // namespace ingot
