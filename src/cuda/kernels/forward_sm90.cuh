// FlashAttention forward on Hopper: one warpgroup loads tiles through the tensor memory
// accelerator, the others compute 64 query rows each. Scores of a key block are turned into weights
// while the product of the weights before them with V runs. Key blocks go from the last to the
// first, so that the ragged end comes first.
#include "cuda/kernels/forward_steps.cuh"

namespace ingot {

// Tensor cores truncate, so operands that are split for their accuracy have every product with V
// start from 0, in `part`, and added to O with rounding.
template <class Config>
INGOT_FN void compute(const ForwardSteps<Config>& steps) {
  using Shape = ForwardShape<Config>;
  using Place = typename ForwardSteps<Config>::KeyPlace;
  constexpr bool split = Shape::planes > 1;
  const Scale scale = make_scale<Config>(steps.params.score);
  const int token = 1 + steps.warpgroup;
  const int next_token = 1 + (steps.warpgroup + 1) % Shape::warpgroups;
  if (Config::ordered && next_token == 1) named_barrier_arrive(1, 256);

  int step = 0;  // key blocks whose scores are taken
  u32 q_phase = 0;
#pragma unroll 1
  for (Turn<Config> turn; turn.unit() < steps.params.units; ++turn.round) {
    const Tile tile = tile_of<Config>(steps.params, turn.unit());
    Rows rows = steps.first_rows(tile, scale);
    float s[Shape::block_n / 2], o[Shape::dim_v / 2], part[Shape::dim_v / 2], correction[2];
    u32 p[Shape::planes][Shape::block_n / 4];
    clear(o);

    if (tile.begin < tile.end) {
      int block = tile.end - 1;
      mbarrier_wait(steps.q_full(), q_phase);
      q_phase ^= 1;
      mbarrier_wait(steps.k_full(step), Place(step).phase);
      steps.issue_qk(s, step);
      wgmma_wait<0>();
      settle(s);
      steps.release(steps.k_empty(step));
      steps.weigh(s, tile, block, scale, rows, correction);
      pack_weights<typename Config::element>(s, p);

#pragma unroll 1
      for (--block; block >= tile.begin; --block) {
        ++step;
        mbarrier_wait(steps.k_full(step), Place(step).phase);
        if (Config::ordered) named_barrier_sync(token, 256);
        steps.issue_qk(s, step);
        steps.issue_pv(split ? part : o, p, step - 1);
        if (Config::ordered) named_barrier_arrive(next_token, 256);
        wgmma_wait<1>();
        settle(s);
        steps.release(steps.k_empty(step));
        const bool raised = steps.weigh(s, tile, block, scale, rows, correction);
        wgmma_wait<0>();
        settle(split ? part : o);
        steps.release(steps.v_empty(step - 1));
        if (split) add(o, part);
        if (raised) multiply(o, correction);
        pack_weights<typename Config::element>(s, p);
      }
      steps.done(steps.q_empty());
      steps.issue_pv(split ? part : o, p, step);
      wgmma_wait<0>();
      settle(split ? part : o);
      steps.release(steps.v_empty(step));
      if (split) add(o, part);
      ++step;
    }
    const float sum[2] = {sum_of_quad(rows.sum[0]), sum_of_quad(rows.sum[1])};
    const Tile done = tile_of<Config>(steps.params, anew(turn.unit()));
    const int place = steps.place_in_tile();
    store_rows<Config, 0>(steps.params, done, place, o, sum);
    store_lse<Config>(steps.params, done, place, rows, sum);
  }
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(ingot::ForwardShape<Config>::threads, 1)
    ingot_kernel(const __grid_constant__ ingot::ForwardParams params,
                 const __grid_constant__ ingot::TensorMap q,
                 const __grid_constant__ ingot::TensorMap k,
                 const __grid_constant__ ingot::TensorMap v) {
  using namespace ingot;
  using Shape = ForwardShape<Config>;
  extern __shared__ char memory[];
  const u32 shared = (shared_address(memory) + 1023) & ~1023u;
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  init_barriers<Config>(shared);
  const ForwardSteps<Config> steps{params, shared, warpgroup};
  if (warpgroup == Shape::warpgroups) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 128 == 0) steps.load(q, k, v);
  } else {
    take_registers<Shape::registers>();
    compute(steps);
  }
  tell_fault(params.faults);
  if (Shape::cluster > 1) cluster_sync();
}
