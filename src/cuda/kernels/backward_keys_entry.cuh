// The kernel of the backward forms that keep keys in place: the last include of each, behind its
// compute_keys.
#pragma once

#include "cuda/kernels/backward_keys.cuh"

extern "C" __global__ void __launch_bounds__(ingot::KeysShape<Config>::threads, 1) ingot_kernel(
    const __grid_constant__ ingot::StoredParams params, const __grid_constant__ ingot::TensorMap k,
    const __grid_constant__ ingot::TensorMap v, const __grid_constant__ ingot::TensorMap q,
    const __grid_constant__ ingot::TensorMap dout, const __grid_constant__ ingot::TensorMap ds) {
  using namespace ingot;
  using Shape = KeysShape<Config>;
  extern __shared__ __align__(1024) char memory[];
  const u32 shared = shared_address(memory);
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  init_key_barriers<Config>(shared);
  const KeysSteps<Config> steps{params, shared};
  const KeyTile tile = key_tile<Config>(params, blockIdx.x);
  if (warp >= 8) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 32 != 0) return;
    if (warp == 8) steps.load(tile, k, v, q, dout);
    if (warp > 8 && warp <= 8 + Shape::key_groups) steps.store(tile, ds, warp - 9);
  } else {
    take_registers<Shape::registers>();
    compute_keys(steps, tile, warp);
  }
  tell_fault(params.faults);
}
