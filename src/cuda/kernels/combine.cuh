// Merges the pieces that forward_mma or decode left in the workspace, in their order. A block of
// threads takes a row: a query of a head.
#pragma once

#include "cuda/kernels/tile.cuh"  // with the dialect, first

#include "algorithm/online_softmax.h"

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::CombineParams p) {
  using namespace ingot;
  using Output = Config::output;
  constexpr int threads = Config::warps * 32;
  const Index row = blockIdx.x, dim = Config::head_dim_v;
  const Index head_row = quotient(row, p.seqlen_q), query = row - head_row * p.seqlen_q;
  const Index batch = quotient(head_row, p.heads), head = head_row - batch * p.heads;
  const float* const piece_lse = p.partial_lse + row * p.splits;
  const float* const piece_o = p.partial_o + row * p.splits * dim;
  extern __shared__ float weights[];  // of the pieces, their lse at first

  wait_for_previous();
  if (p.run_if != nullptr && *p.run_if == 0) return;
  for (int s = threadIdx.x; s < p.splits; s += threads) weights[s] = piece_lse[s];
  __syncthreads();
  float largest = -infinity;
  for (int s = lane(); s < p.splits; s += 32) largest = max_(largest, weights[s]);
  const float offset = finite_or_(max_of_warp(largest), 0.0f);
  float sum = 0.0f;
  for (int s = lane(); s < p.splits; s += 32) sum += exp2_(weights[s] - offset);
  sum = sum_of_warp(sum);
  const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
  __syncthreads();
  for (int s = threadIdx.x; s < p.splits; s += threads) {
    weights[s] = exp2_(weights[s] - offset) * factor;
  }
  __syncthreads();

  Output* const o = static_cast<Output*>(p.o.data) + batch * p.o.stride[0] + head * p.o.stride[1] +
                    query * p.o.stride[2];
  for (int c = threadIdx.x; c < Config::head_dim_v; c += threads) {
    float x = 0.0f;
#pragma unroll 16
    for (int s = 0; s < p.splits; ++s) x += weights[s] * piece_o[s * dim + c];
    from_float(o[c * p.o.stride[3]], x);
  }
  if (threadIdx.x == 0 && p.lse.data != nullptr) {
    static_cast<float*>(
        p.lse.data)[batch * p.lse.stride[0] + head * p.lse.stride[1] + query * p.lse.stride[2]] =
        sum == 0.0f ? -infinity : (offset + log2f(sum)) * ln_2;
  }
}
