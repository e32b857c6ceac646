// Statistics of the queries for the backward pass on Hopper: lse in the base-2 domain and delta =
// sum over columns of dout * o, for rows past the end as for rows without weight. Lanes share a
// row, 8 columns each at a time.
#include "cuda/kernels/backward_params.h"
#include "cuda/kernels/tile.cuh"

namespace ingot {

constexpr int row_lanes = Config::head_dim_v > 128 ? 32 : Config::head_dim_v > 64 ? 16 : 8;

template <class T>
INGOT_FN void load_8(const T* from, float (&x)[8]) {
  constexpr int per_load = 16 / sizeof(T);
  uint4 loaded[8 / per_load];
#pragma unroll
  for (int i = 0; i < 8 / per_load; ++i) loaded[i] = reinterpret_cast<const uint4*>(from)[i];
  const T* elements = reinterpret_cast<const T*>(loaded);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = to_float(elements[i]);
}

struct HeadRow {
  Index batch, head, query;
  template <class T>
  INGOT_FN const T* of(const MatrixView& m) const {
    return static_cast<const T*>(m.data) + batch * m.stride[0] + head * m.stride[1] +
           query * m.stride[2];
  }
};

// This lane's part of the sum.
INGOT_FN float part_of_delta(const StatisticsParams& p, const HeadRow& row, int lane) {
  const auto* o = row.of<Config::output>(p.o);
  const auto* dout = row.of<Config::dout_type>(p.dout);
  float sum = 0.0f;
  if (Config::head_dim_v % 8 == 0 && p.o.vector != 0 && p.dout.vector != 0) {
#pragma unroll
    for (int c = 8 * lane; c < Config::head_dim_v; c += 8 * row_lanes) {
      float x[8], y[8];
      load_8(o + c, x);
      load_8(dout + c, y);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += x[i] * y[i];
    }
  } else {
    for (int c = lane; c < Config::head_dim_v; c += row_lanes) {
      sum += to_float(o[c * p.o.stride[3]]) * to_float(dout[c * p.dout.stride[3]]);
    }
  }
  return sum;
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::StatisticsParams p) {
  using namespace ingot;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < p.counter_count;
       i += gridDim.x * blockDim.x) {
    p.counters[i] = 0;
  }
  constexpr int per_block = Config::warps * 32 / row_lanes;
  const Index row = static_cast<Index>(blockIdx.x) * per_block + threadIdx.x / row_lanes;
  const int place = threadIdx.x % row_lanes;
  if (row >= p.rows) return;  // whole blocks only: rows_padded is a multiple of per_block
  const Index head_row = row / p.rows_padded, query = row - head_row * p.rows_padded;
  const Index batch = head_row / p.heads;
  const HeadRow at{batch, head_row - batch * p.heads, query};
  const bool exists = query < p.seqlen_q;
  float sum = exists ? part_of_delta(p, at, place) : 0.0f;
#pragma unroll
  for (int d = row_lanes / 2; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
  if (place != 0) return;
  const float lse = exists ? *at.of<float>(p.lse) : -infinity;
  const bool weightless = lse == -infinity;
  p.lse_log2[row] = weightless ? infinity : lse * 1.44269504088896340736f;
  p.delta[row] = weightless ? 0.0f : sum;
}
