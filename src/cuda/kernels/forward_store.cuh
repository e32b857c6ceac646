// The end of a tile: O divided by the sums of the weights, and lse, to memory.
#pragma once

#include "cuda/kernels/forward_shape.cuh"
#include "cuda/kernels/softmax.cuh"

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
  to[0] = low;
  if (second) to[step] = high;
}

// One row of this thread (h = 0 or 1) in O, finished; called by whole warps. Rows with `valid`
// false and columns past head_dim_v are left alone. A row without weight (sum 0) is 0, also where V
// holds infinities.
template <class Config, int First, int Count>
INGOT_FN void store_row(const ForwardParams& params, typename Config::output* row, bool valid,
                        const float (&o)[Count], int h, float sum) {
  using Output = typename Config::output;
  constexpr int dim_v = Config::head_dim_v - First, blocks = Count / 4;
  constexpr int wide = sizeof(Output) == 2 ? blocks / 4 * 4 : 0;
  const bool vectors = wide > 0 && params.o_vector == 8;
  const float inverse = 1.0f / sum;
  const int lane = threadIdx.x % 4;
  const Index step = params.o_stride[3];
#pragma unroll
  for (int i = 0; i < blocks; i += 4) {
    float x[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (i + j / 2 < blocks)
        x[j] = sum == 0.0f ? 0.0f : o[4 * i + j / 2 * 4 + 2 * h + j % 2] * inverse;
    }
    if constexpr (wide > 0) {
      if (vectors && i < wide) {
        u32 packed[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) packed[j] = pack<Output>(x[2 * j], x[2 * j + 1]);
        transpose_quad(packed);
        if (valid && 8 * (i + lane) < dim_v) store_16_bytes(row + 8 * (i + lane), packed);
        continue;
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = 8 * (i + j) + 2 * lane;
      if (i + j >= blocks || !valid || column >= dim_v) continue;
      store_pair(row + column * step, step, params.o_vector >= 2, column + 1 < dim_v, x[2 * j],
                 x[2 * j + 1]);
    }
  }
}

// The query head of a tile's row.
template <class Config>
INGOT_FN int head_at(const ForwardParams& params, const Tile& tile, int place) {
  return Config::packed ? tile.head * params.group + place % params.group : tile.head;
}

// The rows of this thread, the first at `place` in the tile and the second 8 below: columns of o
// from First on.
template <class Config, int First, int Count>
INGOT_FN void store_rows(const ForwardParams& params, const Tile& tile, int place,
                         const float (&o)[Count], const float (&sum)[2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h, place += 8) {
    const Index row = tile.row + query_rows<Config>(params, place);
    const Index offset = tile.batch * params.o_stride[0] +
                         head_at<Config>(params, tile, place) * params.o_stride[1] +
                         row * params.o_stride[2] + First * params.o_stride[3];
    store_row<Config, First>(params, static_cast<typename Config::output*>(params.o) + offset,
                             row < params.score.seqlen_q, o, h, sum[h]);
  }
}

template <class Config>
INGOT_FN void store_lse(const ForwardParams& params, const Tile& tile, int place,
                        const float (&max)[2], const float (&sum)[2], float scale_log2) {
  if (params.lse == nullptr || threadIdx.x % 4 != 0) return;
#pragma unroll
  for (int h = 0; h < 2; ++h, place += 8) {
    const Index row = tile.row + query_rows<Config>(params, place);
    if (row >= params.score.seqlen_q) continue;
    params.lse[tile.batch * params.lse_stride[0] +
               head_at<Config>(params, tile, place) * params.lse_stride[1] +
               row * params.lse_stride[2]] =
        (finite_or_(max[h], 0.0f) * scale_log2 + log2_(sum[h])) * ln_2;
  }
}

}  // namespace ingot
