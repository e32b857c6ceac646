// FlashAttention forward on Hopper for heads so wide that O (64 rows) takes two warpgroups. A third
// turns scores into weights, which it hands to those two through shared memory, and takes the next
// scores while they multiply; a fourth loads.
#include "cuda/kernels/forward_steps.cuh"

namespace ingot {

template <class Config>
struct WideSteps : ForwardSteps<Config> {
  using Shape = ForwardShape<Config>;
  using Message = Place<Shape::messages>;  // two are under way

  INGOT_FN u32 p_tile(int message) const {
    return this->shared + Shape::p_at + Message(message).slot * Shape::p_tile;
  }
  INGOT_FN u32 factors(int message) const {
    return this->shared + Shape::factors_at + Message(message).slot * Shape::factors +
           threadIdx.x % 128 * 8;
  }
  INGOT_FN u32 p_full(int message) const {
    return this->shared + Shape::p_full + 8 * Message(message).slot;
  }
  INGOT_FN u32 p_empty(int message) const {
    return this->shared + Shape::p_empty + 8 * Message(message).slot;
  }

  // Weights, swizzled like any tile, and the factor that O is to be multiplied by before them.
  INGOT_FN void send(int message, const u32 (&p)[Shape::block_n / 4],
                     const float (&factor)[2]) const {
    mbarrier_wait(p_empty(message), Message(message).phase ^ 1);
    const int thread = threadIdx.x % 128, lane = thread % 32;
    const u32 row = p_tile(message) + (thread / 32 * 16 + lane % 16) * 128;
#pragma unroll
    for (int i = 0; i < Shape::block_n / 16; ++i) {
      store_matrix(row + (((2 * i + lane / 16) ^ (lane % 8)) << 4), p + 4 * i);
    }
    store_shared(factors(message), factor);
    fence_async_shared();
    mbarrier_arrive(p_full(message));
  }
  INGOT_FN void receive(int message, float (&factor)[2]) const {
    mbarrier_wait(p_full(message), Message(message).phase);
    load_shared(factors(message), factor);
  }

  // O += P V, `Count` columns from First on; 128 a product, since an instruction may not take more
  // registers than a thread starts with.
  template <int First, int Count>
  INGOT_FN void multiply_columns(float* o, int step, int message) const {
    constexpr int columns = Count < 128 ? Count : 128, panel = Shape::block_n * 128;
    const u64 p = wgmma_tile(p_tile(message), 0);
    const u64 v = wgmma_tile(this->v_tile(step) + First / 64 * panel, panel);
#pragma unroll
    for (int i = 0; i < Shape::block_n / 16; ++i) {
      Wgmma<typename Config::element, columns>::template ss<0, 1>(o, p + i * 32 / 16,
                                                                  v + i * 16 * 128 / 16, 1);
    }
    if constexpr (Count > columns) {
      multiply_columns<First + columns, Count - columns>(o + columns / 2, step, message);
    }
  }
};

// Scores of a block to weights, and on their way.
template <class Config>
INGOT_FN void weigh_and_send(const WideSteps<Config>& steps, float (&s)[Config::block_n / 2],
                             const Tile& tile, int block, const Scale& scale, Rows& rows,
                             int message) {
  u32 p[1][Config::block_n / 4];
  float correction[2] = {1.0f, 1.0f};
  steps.weigh(s, tile, block, scale, rows, correction);
  pack_weights<typename Config::element>(s, p);
  steps.send(message, p[0], correction);
}

// The first warpgroup: scores and weights. Scores of the next block are taken while those of this
// one, moved out of their way, become weights.
template <class Config>
INGOT_FN void compute_weights(const WideSteps<Config>& steps) {
  using Shape = ForwardShape<Config>;
  using Place = typename ForwardSteps<Config>::KeyPlace;
  constexpr int count = Shape::block_n / 2;
  const Scale scale = make_scale<Config>(steps.params.score);
  int step = 0, message = 0;
  u32 q_phase = 0;
#pragma unroll 1
  for (Turn<Config> turn; turn.unit() < steps.params.units; ++turn.round) {
    const Tile tile = tile_of<Config>(steps.params, turn.unit());
    Rows rows = steps.first_rows(tile, scale);
    float s[count], moved[count];
    if (tile.begin < tile.end) {
      mbarrier_wait(steps.q_full(), q_phase);
      q_phase ^= 1;
      mbarrier_wait(steps.k_full(step), Place(step).phase);
      steps.issue_qk(s, step);
#pragma unroll 1
      for (int block = tile.end - 1; block > tile.begin; --block, ++message) {
        wgmma_wait<0>();
        settle(s);
        move(moved, s);
        steps.release(steps.k_empty(step++));
        mbarrier_wait(steps.k_full(step), Place(step).phase);
        steps.issue_qk(s, step);
        weigh_and_send(steps, moved, tile, block, scale, rows, message);
      }
      wgmma_wait<0>();
      settle(s);
      steps.release(steps.k_empty(step++));
      steps.done(steps.q_empty());
      weigh_and_send(steps, s, tile, tile.begin, scale, rows, message++);
    }
    const float sum[2] = {sum_of_quad(rows.sum[0]), sum_of_quad(rows.sum[1])};
    const u32 nothing[Shape::block_n / 4] = {};
    steps.send(message++, nothing, sum);
    store_lse<Config>(steps.params, tile, steps.place_in_tile(), rows, sum);
  }
}

// The second and third: O += P V for `Count` columns from First on.
template <class Config, int First, int Count>
INGOT_FN void compute_columns(const WideSteps<Config>& steps) {
  using Shape = ForwardShape<Config>;
  using Place = typename ForwardSteps<Config>::KeyPlace;
  int step = 0, message = 0;
#pragma unroll 1
  for (Turn<Config> turn; turn.unit() < steps.params.units; ++turn.round) {
    const Tile tile = tile_of<Config>(steps.params, turn.unit());
    float o[Count / 2], factor[2];
    clear(o);
#pragma unroll 1
    for (int block = tile.begin; block < tile.end; ++block, ++step, ++message) {
      steps.receive(message, factor);
      if (__any_sync(~0u, factor[0] != 1.0f || factor[1] != 1.0f)) multiply(o, factor);
      mbarrier_wait(steps.v_full(step), Place(step).phase);
      wgmma_fence();
      steps.template multiply_columns<First, Count>(o, step, message);
      wgmma_commit();
      wgmma_wait<0>();
      settle(o);
      steps.release(steps.v_empty(step));
      steps.done(steps.p_empty(message));
    }
    steps.receive(message, factor);  // the sums
    named_barrier_sync(First == 0 ? 1 : 2, 128);
    steps.done(steps.p_empty(message++));
    store_rows<Config, First>(steps.params, tile, steps.place_in_tile(), o, factor);
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
  const WideSteps<Config> steps{{params, shared, warpgroup}};
  constexpr int half = Shape::columns;
  if (warpgroup == 3) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 128 == 0) steps.load(q, k, v);
  } else if (warpgroup == 0) {
    if constexpr (Shape::weights_registers < 128) {
      give_registers<Shape::weights_registers>();
    } else {
      take_registers<Shape::weights_registers>();
    }
    compute_weights(steps);
  } else if (warpgroup == 1) {
    take_registers<Shape::registers>();
    compute_columns<Config, 0, half>(steps);
  } else {
    take_registers<Shape::registers>();
    compute_columns<Config, half, Shape::dim_v - half>(steps);
  }
  tell_fault(params.faults);
  if (Shape::cluster > 1) cluster_sync();
}
