// delta = sum over columns of dout * o: a number per query, which the backward kernels subtract
// from dP. A warp takes a row.
#pragma once

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
  const auto at = [&](const MatrixView& view) {
    return batch * view.stride[0] + head * view.stride[1] + query * view.stride[2];
  };
  const auto* const o = static_cast<const Config::output*>(p.o.data) + at(p.o);
  const auto* const dout = static_cast<const Config::dout_type*>(p.dout.data) + at(p.dout);
  float sum = 0.0f;
  for (int c = lane(); c < Config::head_dim_v; c += 32) {
    sum += to_float(dout[c * p.dout.stride[3]]) * to_float(o[c * p.o.stride[3]]);
  }
  sum = sum_of_warp(sum);
  const bool weightless = static_cast<const float*>(p.lse.data)[at(p.lse)] == -infinity;
  if (lane() == 0) p.delta[row] = weightless ? 0.0f : sum;
}
