// Statistics of the queries for the backward pass on Hopper: lse as large_rows.cuh stores it, with
// the sums of large rows, and delta = sum over columns of dout * o, for rows past the end as for
// rows without weight. Lanes share a row, 8 columns each at a time, or a key of a large row.
#include "cuda/kernels/backward_params.h"
#include "cuda/kernels/large_rows.cuh"
#include "cuda/kernels/row_sum.cuh"

namespace ingot {

constexpr int row_lanes = statistics_lanes(Config::head_dim_v);
static_assert(Config::warps == statistics_warps, "large_rows.cuh");

// This lane's part of the sum.
INGOT_FN float part_of_delta(const StatisticsParams& p, const HeadRow& row, int lane) {
  return part_of_product<Config::head_dim_v, row_lanes>(
      row.of<Config::output>(p.o), p.o.stride[3], row.of<Config::dout_type>(p.dout),
      p.dout.stride[3], p.o.vector != 0 && p.dout.vector != 0, lane);
}

// Called by whole warps, if one of their block's rows is large: the sum of this row, and lse as it
// counts.
INGOT_FN float log2_sum_of(const StatisticsParams& p, const HeadRow& row, int lane, float& lse) {
  RowSum sum{-infinity, 0.0f};
  if (is_large_lse(lse)) {
    sum = part_of_row_sum<Config, row_lanes>(
        p.q, p.k, p.score, p.score, RowParts<Config>{}, row, row.head / p.group, lane,
        [](float x) { return sizeof(Config::q_type) == 2 ? tanh_fast(x) : tanh_(x); });
  }
  sum = sum_of_lanes<row_lanes>(sum);
  if (is_large_lse(lse)) lse = settled_lse<Config>(lse, sum, p.score);
  return sum.log2();
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::StatisticsParams p) {
  using namespace ingot;
  constexpr int per_block = Config::warps * 32 / row_lanes;
  const Index row = static_cast<Index>(blockIdx.x) * per_block + threadIdx.x / row_lanes;
  const int place = threadIdx.x % row_lanes;
  if (row >= p.rows) return;  // whole blocks only: rows_padded is a multiple of per_block
  const Index head_row = row / p.rows_padded, query = row - head_row * p.rows_padded;
  const Index batch = head_row / p.heads;
  const HeadRow at{batch, head_row - batch * p.heads, query};
  const bool exists = query < p.score.seqlen_q;
  float sum = exists ? part_of_delta(p, at, place) : 0.0f;
#pragma unroll
  for (int d = row_lanes / 2; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
  float lse = exists ? *at.of<float>(p.lse) : -infinity;
  const int any_large = __syncthreads_or(is_large_lse(lse) ? 1 : 0);
  if (threadIdx.x == 0) {
    reinterpret_cast<unsigned char*>(p.delta + p.rows)[blockIdx.x] = any_large != 0 ? 1 : 0;
  }
  const float log2_sum = any_large != 0 ? log2_sum_of(p, at, place, lse) : 0.0f;
  if (place != 0) return;
  p.lse_log2[row] = stored_lse(lse, log2_sum);
  p.delta[row] = lse == -infinity ? 0.0f : sum;
  p.delta[log2_sums_behind(p.rows) + row] = log2_sum;
  if (p.turns != nullptr && row % 64 == 0) p.turns[row / 64] = 0;
}
