// Merges the pieces that forward_mma or decode left in the workspace. A warp takes a row: a query
// of a head.
#pragma once

#include "cuda/kernels/merge_pieces.cuh"

extern "C" __global__ void __launch_bounds__(32)
    ingot_kernel(const __grid_constant__ ingot::CombineParams p) {
  using namespace ingot;
  wait_for_previous();
  if (p.run_if != nullptr && *p.run_if == 0) return;
  merge_pieces<Config::output, Config::head_dim_v>(p, blockIdx.x);
}
