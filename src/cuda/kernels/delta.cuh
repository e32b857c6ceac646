// delta = sum over columns of dout * o, which the backward kernels subtract from dP, and what they
// subtract from scores: a number each per query. A warp takes a row.
#pragma once

#include "cuda/kernels/pairs.cuh"
#include "cuda/kernels/row_sum.cuh"
#include "cuda/kernels/tile.cuh"

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::MmaBackwardParams p) {
  using namespace ingot;
  if (p.run_if != nullptr && *p.run_if == 0) return;
  const Index row = static_cast<Index>(blockIdx.x) * Config::warps + warp();
  const Index seqlen_q = p.score.seqlen_q;
  if (row >= p.batch * p.heads * seqlen_q) return;
  const Index head_row = row / seqlen_q, query = row - head_row * seqlen_q;
  const Index batch = head_row / p.heads, head = head_row - batch * p.heads;
  const HeadRow at{batch, head, query};
  const auto* const o = at.of<Config::output>(p.o);
  const auto* const dout = at.of<Config::dout_type>(p.dout);
  const float sum = sum_of_warp(part_of_product<Config::head_dim_v, 32>(
      o, p.o.stride[3], dout, p.dout.stride[3], p.o.vector != 0 && p.dout.vector != 0, lane()));
  const float lse = *at.of<float>(p.lse);
  float shift = lse == -infinity ? infinity : lse, log2_sum = 0.0f;
  if (is_large_lse(lse)) {
    const Parts<Config> parts = parts_of<Config>(p.parts);
    RowSum mine = part_of_row_sum<Config, 32>(p.q, p.k, p.score, parts.band(p.score, batch),
                                              parts.row(batch, head, query), at, head / p.group,
                                              lane(), [](float x) { return tanh_(x); });
    if (Config::sinks && lane() == 0) mine.add(parts.sink(head));
    const RowSum weights = sum_of_lanes<32>(mine);
    log2_sum = weights.log2();
    shift = heaviest_of(settled_lse<Config>(lse, weights, p.score), log2_sum);
  }
  if (lane() == 0) p.statistics[row] = {shift, log2_sum, lse == -infinity ? 0.0f : sum};
}
