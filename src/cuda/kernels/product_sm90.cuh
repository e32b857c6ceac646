// Products of stored matrices with tensors as launches of their own (product_steps.cuh).
#include "cuda/kernels/product_steps.cuh"

extern "C" __global__ void __launch_bounds__(ingot::ProductShape<Config>::threads, 1)
    ingot_kernel(const __grid_constant__ ingot::ProductParams params,
                 const __grid_constant__ ingot::TensorMap a,
                 const __grid_constant__ ingot::TensorMap b) {
  using namespace ingot;
  using Shape = ProductShape<Config>;
  extern __shared__ char memory[];
  const u32 shared = (shared_address(memory) + 1023) & ~1023u;
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  const ProductSteps<Config> steps{params, shared};
  start_next_grid();  // a product too: it reads nothing of this one
  if (threadIdx.x == 0) steps.init_barriers();
  __syncthreads();
  Ring<Shape::stages> ring;
  if (warpgroup == Shape::warpgroups) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 128 == 0) {
      for (int unit = blockIdx.x; unit < params.units; unit += gridDim.x) {
        steps.load(a, b, product_tile<Config>(params, unit), ring);
      }
      wait_for_previous_grid();  // who waits for this grid waits for those it overlapped
    }
  } else {
    take_registers<Shape::registers>();
#pragma unroll 1
    for (int unit = blockIdx.x; unit < params.units; unit += gridDim.x) {
      steps.compute(unit, ring, warpgroup);
    }
  }
}
