// Backward pass on Hopper for heads to 64 in one kernel: a block keeps 128 keys and goes through
// the queries that see them. Two warpgroups have 64 keys each and make S, P, dP, dS, dV and dK; a
// third makes dQ of the dS of both, so that the two never wait for one another.
#include "cuda/kernels/backward_fused_steps.cuh"
#include "cuda/kernels/backward_fused_sums.cuh"

namespace ingot {

// What a warpgroup with keys holds in registers.
template <class Config>
struct FusedTiles {
  using Shape = FusedShape<Config>;
  float s[32], dp[32], dk[Shape::dim / 2], dv[Shape::dim_v / 2];
  float lse[16], delta[16];
  u32 p[16], ds[16];
};

// One step, 64 keys by 64 queries, and the beginning of the next. P of this step is there, dP on
// its way.
//
// Scores of the next step are taken beside dS of this one, and its dP beside its P: every product
// runs beside pointwise work that does not wait for it. dS is made of P as it was packed, so that
// the registers of S are free by then. Whether a step is an edge is asked once, outside: branches
// between its products and pointwise work would cost a seventh of the speed.
template <bool Edge, bool Large, class Config>
INGOT_FN void take_step(const FusedSteps<Config>& steps, FusedTiles<Config>& t,
                        const ScoreFactors& factors, int block, int next_block, int step,
                        int next) {
  using Shape = FusedShape<Config>;
  using Stage = typename FusedSteps<Config>::Stage;
  steps.load_statistic(t.delta, steps.delta(step));
  mbarrier_wait(steps.full(next), Stage(next).phase);
  wgmma_wait<0>();  // dP of this step, dK of the one before
  settle(t.dp);
  if (step > 0) steps.release(step - 1);
  // With softcap dS is made of S too: before the next scores take its registers.
  if (Config::softcap) {
    steps.template differentiate<Edge>(t.s, t.p, t.dp, t.ds, t.delta, block);
  }
  wgmma_fence();
  steps.template multiply_rows<Shape::dim>(t.s, Shape::k_at, steps.q_tile(next));
  steps.template multiply_sum<Shape::dim_v>(t.dv, t.p, steps.dout_tile(step));
  wgmma_commit();
  steps.await_slot(step);  // a branch: products above it are issued before pointwise work below
  if (!Config::softcap) {
    steps.template differentiate<Edge>(t.s, t.p, t.dp, t.ds, t.delta, block);
  }
  steps.put(t.ds, step);
  steps.load_statistic(t.lse, steps.lse(next));
  wgmma_wait<0>();  // S of the next step, dV of this one
  settle(t.s);
  wgmma_fence();
  steps.template multiply_rows<Shape::dim_v>(t.dp, Shape::v_at, steps.dout_tile(next));
  steps.template multiply_sum<Shape::dim>(t.dk, t.ds, steps.q_tile(step));
  wgmma_commit();
  steps.hand_over(step);
  steps.template weigh<Edge, Large>(t.s, t.p, t.lse, factors, next, next_block);
}

// S, P and the beginning of dP of the first step.
template <bool Large, class Config>
INGOT_FN void begin_steps(const FusedSteps<Config>& steps, FusedTiles<Config>& t,
                          const ScoreFactors& factors, int block) {
  using Shape = FusedShape<Config>;
  mbarrier_wait(steps.shared + Shape::kv_full, 0);
  mbarrier_wait(steps.full(0), 0);
  wgmma_fence();
  steps.template multiply_rows<Shape::dim>(t.s, Shape::k_at, steps.q_tile(0));
  wgmma_commit();
  steps.load_statistic(t.lse, steps.lse(0));
  wgmma_wait<0>();
  settle(t.s);
  wgmma_fence();
  steps.template multiply_rows<Shape::dim_v>(t.dp, Shape::v_at, steps.dout_tile(0));
  wgmma_commit();
  steps.template weigh<true, Large>(t.s, t.p, t.lse, factors, 0, block);
}

template <bool Large, class Config>
INGOT_FN void compute(const FusedSteps<Config>& steps) {
  FusedTiles<Config> t;
  clear(t.dk);
  clear(t.dv);
  settle(t.dk);  // before any product is issued: the compiler would clear between them
  settle(t.dv);
  const int count = steps.steps();
  if (count > 0) {
    const ScoreFactors factors = make_score_factors(steps.params.score);
    const QueryBlocks full = steps.full_blocks();
    int block = Walk::first(steps.params, steps.keys);
    begin_steps<Large>(steps, t, factors, block);
#pragma unroll 1
    for (int step = 0; step < count; ++step) {
      // After the last step its own first product is issued once more and dropped: under a branch
      // ptxas would serialise every wgmma.
      const int next = min(step + 1, count - 1);
      const int next_block = Walk::after(steps.params, steps.keys, block);
      if (!Large && full.holds(block) && full.holds(next_block)) {
        take_step<false, Large>(steps, t, factors, block, next_block, step, next);
      } else {
        take_step<true, Large>(steps, t, factors, block, next_block, step, next);
      }
      block = next_block;
    }
    wgmma_wait<0>();
    settle(t.dk);
    settle(t.dv);
  }
  steps.template store<Config::head_dim, typename Config::dk_type>(steps.params.dk, t.dk,
                                                                   steps.params.score.scale);
  steps.template store<Config::head_dim_v, typename Config::dv_type>(steps.params.dv, t.dv, 1.0f);
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
    const FusedSteps<Config> steps{params, keys, shared, warpgroup};
    if (steps.any_is_large()) {
      compute<true>(steps);
    } else {
      compute<false>(steps);
    }
  }
  tell_fault(params.faults);
}
