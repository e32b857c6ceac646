// The end of a tile: O divided by the sums of the weights, and lse, to memory.
#pragma once

#include "cuda/kernels/forward_shape.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/store_columns.cuh"

namespace ingot {

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
    // A row without weight is 0, also where V holds infinities.
    store_columns<Config::head_dim_v - First>(
        static_cast<typename Config::output*>(params.o) + offset, params.o_stride[3],
        params.o_vector, row < params.score.seqlen_q, o, h, sum[h] == 0.0f ? 0.0f : 1.0f / sum[h]);
  }
}

template <class Config>
INGOT_FN void store_lse(const ForwardParams& params, const Tile& tile, int place, const Rows& rows,
                        const float (&sum)[2]) {
  if (params.lse == nullptr || threadIdx.x % 4 != 0) return;
  const float factor = outer_factor<Config>(params.score);
#pragma unroll
  for (int h = 0; h < 2; ++h, place += 8) {
    const Index row = tile.row + query_rows<Config>(params, place);
    if (row >= params.score.seqlen_q) continue;
    params.lse[tile.batch * params.lse_stride[0] +
               head_at<Config>(params, tile, place) * params.lse_stride[1] +
               row * params.lse_stride[2]] =
        unless_marked(lse_of_row(rows.max[h], rows.scale[h], sum[h], factor));
  }
}

}  // namespace ingot
