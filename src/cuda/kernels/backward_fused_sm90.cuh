// Backward pass on Hopper for heads to 64 in one kernel: a block keeps 128 keys and goes through
// the queries that see them. Two warpgroups have 64 keys each and make S, P, dP, dS, dV and dK; a
// third makes dQ of the dS of both, so that the two never wait for one another.
#include "cuda/kernels/backward_fused_steps.cuh"
#include "cuda/kernels/backward_fused_sums.cuh"

namespace ingot {

// Scores of the next step are taken before dS of this one is made, and dP before P: every product
// runs beside pointwise work that does not wait for it. dS is made of P as it was packed, so that
// the registers of S are free by then.
template <class Config>
INGOT_FN void compute(const FusedSteps<Config>& steps) {
  using Shape = FusedShape<Config>;
  using Stage = typename FusedSteps<Config>::Stage;
  float s[32], dp[32], dk[Shape::dim / 2], dv[Shape::dim_v / 2];
  u32 p[16], w[Config::softcap ? 16 : 1], ds[16];
  clear(dk);
  clear(dv);
  settle(dk);
  settle(dv);
  const int count = steps.steps();
  if (count > 0) {
    mbarrier_wait(steps.shared + Shape::kv_full, 0);
    mbarrier_wait(steps.q_full(0), 0);
    wgmma_fence();
    steps.template multiply_rows<Shape::dim>(s, Shape::k_at, steps.q_tile(0));
    wgmma_commit();
    mbarrier_wait(steps.dout_full(0), 0);
    wgmma_wait<0>();
    settle(s);
    wgmma_fence();
    steps.template multiply_rows<Shape::dim_v>(dp, Shape::v_at, steps.dout_tile(0));
    wgmma_commit();
    Walk walk(steps.params, steps.keys);
#pragma unroll 1
    for (int step = 0; step < count; ++step, walk.next(steps.params, steps.keys)) {
      const SeenQueries seen = steps.seen_in(walk);
      if (seen.all) {
        steps.template weigh<false>(s, p, w, seen, step);
      } else {
        steps.template weigh<true>(s, p, w, seen, step);
      }
      wgmma_wait<0>();  // dP of this step, dK of the one before
      settle(dp);
      if (step > 0) steps.release(step - 1);
      // After the last step products take the slot's old tiles: a product under a condition would
      // make the compiler serialise all of them.
      const bool more = step + 1 < count;
      if (more) mbarrier_wait(steps.q_full(step + 1), Stage(step + 1).phase);
      wgmma_fence();
      steps.template multiply_rows<Shape::dim>(s, Shape::k_at, steps.q_tile(step + 1));
      steps.template multiply_sum<Shape::dim_v>(dv, p, steps.dout_tile(step));
      wgmma_commit();
      const auto& factor = [&]() -> const u32(&)[16] {
        if constexpr (Config::softcap) return w;
        else return p;
      }();
      if (seen.all) {
        steps.template differentiate<false>(factor, dp, ds, seen, step);
      } else {
        steps.template differentiate<true>(factor, dp, ds, seen, step);
      }
      steps.hand_over(ds, step);
      if (more) mbarrier_wait(steps.dout_full(step + 1), Stage(step + 1).phase);
      wgmma_wait<0>();  // S of the next step, dV of this one
      settle(s);
      wgmma_fence();
      steps.template multiply_rows<Shape::dim_v>(dp, Shape::v_at, steps.dout_tile(step + 1));
      steps.template multiply_sum<Shape::dim>(dk, ds, steps.q_tile(step));
      wgmma_commit();
    }
    wgmma_wait<0>();
    settle(dk);
    settle(dv);
  }
  steps.template store<Config::head_dim, typename Config::dk_type>(steps.params.dk, dk,
                                                                  steps.params.score.scale);
  steps.template store<Config::head_dim_v, typename Config::dv_type>(steps.params.dv, dv, 1.0f);
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(ingot::FusedShape<Config>::threads, 1)
    ingot_kernel(const __grid_constant__ ingot::FusedParams params,
                 const __grid_constant__ ingot::TensorMap q,
                 const __grid_constant__ ingot::TensorMap k,
                 const __grid_constant__ ingot::TensorMap v,
                 const __grid_constant__ ingot::TensorMap dout) {
  using namespace ingot;
  using Shape = FusedShape<Config>;
  extern __shared__ char memory[];
  const u32 shared = (shared_address(memory) + 1023) & ~1023u;
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  const KeyBlock keys = key_block<Config>(params);
  init_fused_barriers<Config>(shared);
  if (warpgroup == 3) {
    give_registers<Shape::loader_registers>();
    const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
    if (threadIdx.x % 32 != 0) return;
    if (warp == 0) FusedSteps<Config>{params, keys, shared, warpgroup}.load(q, k, v, dout);
    if (warp == 1 || warp == 2) FusedSums<Config>{params, keys, shared}.ask(warp - 1);
  } else if (warpgroup == 2) {
    give_registers<Shape::sum_registers>();
    FusedSums<Config>{params, keys, shared}.run();
  } else {
    take_registers<Shape::key_registers>();
    compute(FusedSteps<Config>{params, keys, shared, warpgroup});
  }
}
