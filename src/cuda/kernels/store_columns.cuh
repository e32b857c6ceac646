// Rows of wgmma accumulators to memory, with any strides.
#pragma once

#include "algorithm/params.h"
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/dialect.h"

namespace ingot {

// Four lanes of a quad hold a pair of columns each of four blocks of 8: afterwards each holds the
// four pairs of one block, the one of its own number.
INGOT_FN void transpose_quad(u32 (&x)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const u32 got = __shfl_xor_sync(~0u, odd ? x[i] : x[i + 1], 1);
    (odd ? x[i] : x[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const u32 got = __shfl_xor_sync(~0u, upper ? x[i] : x[i + 2], 2);
    (upper ? x[i] : x[i + 2]) = got;
  }
}

INGOT_FN void store_16_bytes(void* to, const u32 (&x)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x[0]), "r"(x[1]),
               "r"(x[2]), "r"(x[3])
               : "memory");
}

template <class T>
INGOT_FN void store_pair(T* to, Index step, bool aligned, bool second, float low, float high) {
  const u32 both = pack<T>(low, high);
  if (aligned && second) {
    *reinterpret_cast<u32*>(to) = both;
  } else {
    to[0].bits = static_cast<u16>(both);
    if (second) to[step].bits = static_cast<u16>(both >> 16);
  }
}
template <>
INGOT_FN void store_pair<float>(float* to, Index step, bool aligned, bool second, float low,
                                float high) {
  if (aligned && second) {
    asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(low), "f"(high) : "memory");
  } else {
    to[0] = low;
    if (second) to[step] = high;
  }
}

// One row of this thread (h = 0 or 1) in accumulators `x`, times `factor`, to `dim` columns at
// `row`, `step` apart; called by whole warps. Rows with `valid` false and columns past dim are left
// alone. A block that is marked (barrier.cuh) stores NaN. `vector`: columns that one aligned store
// may write: 8 (16-bit types), 2 or 1. With factor 0 the row is 0, also where accumulators are
// infinite.
template <class Output, int Count>
INGOT_FN void store_columns(Output* row, int dim, Index step, int vector, bool valid,
                            const float (&x)[Count], int h, float factor) {
  constexpr int blocks = Count / 4;
  constexpr int wide = sizeof(Output) == 2 ? blocks / 4 * 4 : 0;
  const bool vectors = wide > 0 && vector == 8;
  factor = unless_marked(factor);
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < blocks; i += 4) {
    float y[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (i + j / 2 < blocks)
        y[j] = factor == 0.0f ? 0.0f : x[4 * i + j / 2 * 4 + 2 * h + j % 2] * factor;
    }
    if constexpr (wide > 0) {
      if (vectors && i < wide) {
        u32 packed[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) packed[j] = pack<Output>(y[2 * j], y[2 * j + 1]);
        transpose_quad(packed);
        if (valid && 8 * (i + lane) < dim) store_16_bytes(row + 8 * (i + lane), packed);
        continue;
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = 8 * (i + j) + 2 * lane;
      if (i + j >= blocks || !valid || column >= dim) continue;
      store_pair(row + column * step, step, vector >= 2, column + 1 < dim, y[2 * j], y[2 * j + 1]);
    }
  }
}
template <int Dim, class Output, int Count>
INGOT_FN void store_columns(Output* row, Index step, int vector, bool valid,
                            const float (&x)[Count], int h, float factor) {
  store_columns(row, Dim, step, vector, valid, x, h, factor);
}

}  // namespace ingot
