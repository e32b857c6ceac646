// dsinks = - sum over the batch and the rows of the sink's weight * delta. A block of threads takes
// a head, its threads every so many rows, and adds them up in a fixed order.
#pragma once

#include "cuda/kernels/backward_unit.cuh"

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::MmaBackwardParams p) {
  using namespace ingot;
  if (p.run_if != nullptr && *p.run_if == 0) return;
  __shared__ float sums[Config::warps];
  const Index head = blockIdx.x, seqlen_q = p.score.seqlen_q, rows = p.batch * seqlen_q;
  const float sink = parts_of<Config>(p.parts).sink(head);
  float sum = 0.0f;
  for (Index i = threadIdx.x; i < rows; i += Config::warps * 32) {
    const Index batch = i / seqlen_q;
    const RowStatistics row = statistics_of(p, batch, head, i - batch * seqlen_q);
    sum -= exp2_(exponent_of(sink, row)) * row.delta;
  }
  sum = sum_of_warp(sum);
  if (lane() == 0) sums[warp()] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float all = 0.0f;
  for (int w = 0; w < Config::warps; ++w) all += sums[w];
  from_float(static_cast<Config::output*>(p.dsinks.data)[head * p.dsinks.stride[1]], all);
}
