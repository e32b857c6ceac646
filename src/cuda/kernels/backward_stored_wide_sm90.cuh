// dk, dv and dS on Hopper, for heads to 256: dK and dV of 64 keys are so wide that a warpgroup has
// room for one of them. The first makes P and dV, and hands P over in shared memory; the second
// makes dS and dK. As in backward_stored_sm90.cuh dS goes to memory, and the products of the next
// block of queries run ahead of the sums of this one.
#include "cuda/kernels/backward_pairs.cuh"

namespace ingot {

template <class Config>
struct WideSteps : KeysSteps<Config> {
  using Shape = KeysShape<Config>;
  using T = typename Config::element;
  using Stage = typename KeysSteps<Config>::Stage;
  const KeyTile& tile;

  INGOT_FN bool is_full(Stage at) const {
    return is_full_pair<Config>(this->params.score, tile.key, load_shared(this->query(at)));
  }
  INGOT_FN Viewers viewers(Stage at) const {
    return viewers_of<Config>(this->params.score, tile.key, load_shared(this->query(at)));
  }
  // From every warp: numbers and tiles of a stage that it does not look at any more.
  INGOT_FN void leave(u32 barrier) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  }
  INGOT_FN void leave_together(u32 barrier) const {
    if (threadIdx.x % 128 == 0) mbarrier_arrive(barrier);
  }

  INGOT_FN void issue_scores(float (&s)[32], Stage at) const {
    wgmma_fence();
    multiply_pairs<T, Shape::dim>(s, wgmma_tile(this->shared + Shape::k_at, 0), Shape::key_panel,
                                  wgmma_tile(this->q_tile(at), 0));
    wgmma_commit();
  }
  INGOT_FN void issue_dp(float (&dp)[32], Stage at) const {
    wgmma_fence();
    multiply_pairs<T, Shape::dim_v>(dp, wgmma_tile(this->shared + Shape::v_at, 0), Shape::key_panel,
                                    wgmma_tile(this->dout_tile(at), 0));
    wgmma_commit();
  }

  // S to P, and `graded`, P times the derivative of the score. Before anything is packed all
  // products are done, whose operands lie there; with softcap before anything at all.
  INGOT_FN void weigh(float (&s)[32], u32 (&p)[16], u32 (&graded)[16], Stage at,
                      const PairFactors& factors) const {
    if constexpr (Config::softcap) {
      wgmma_wait<0>();
      if (is_full(at)) {
        make_capped_weights<Config, false>(s, p, this->lse(at), factors, Viewers{});
      } else {
        make_capped_weights<Config, true>(s, p, this->lse(at), factors, viewers(at));
      }
      pack_pairs<T>(s, graded);
    } else {
      make_weights(s, this->lse(at), factors);
      if (!is_full(at)) clear_hidden<Config>(s, viewers(at));
      wgmma_wait<0>();
      pack_pairs<T>(s, p);
#pragma unroll
      for (int i = 0; i < 16; ++i) graded[i] = p[i];
    }
  }

  INGOT_FN void send_weights(const u32 (&graded)[16], RingPlace<2> at) const {
    mbarrier_wait(this->p_empty(at.slot), at.phase ^ 1);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const u32 x[4] = {graded[4 * i], graded[4 * i + 1], graded[4 * i + 2], graded[4 * i + 3]};
      store_shared(this->p_tile(at.slot) + i * 128 * 16, x);
    }
    leave(this->p_full(at.slot));
  }

  // dp becomes dS, of weights that the other warpgroup sent.
  INGOT_FN void differentiate(float (&dp)[32], Stage at, RingPlace<2> weights) const {
    mbarrier_wait(this->p_full(weights.slot), weights.phase);
    float s[32];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      u32 x[4];
      load_shared(this->p_tile(weights.slot) + i * 128 * 16, x);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[8 * i + 2 * j] = low_of<T>(x[j]);
        s[8 * i + 2 * j + 1] = high_of<T>(x[j]);
      }
    }
    leave(this->p_empty(weights.slot));
    make_ds(s, dp, this->delta(at));
    if (!is_full(at)) clear_hidden<Config>(dp, viewers(at));
  }

  INGOT_FN void send_ds(const u32 (&ds)[16], RingPlace<2> at) const {
    mbarrier_wait(this->ds_empty(0, at.slot), at.phase ^ 1);
    put_tile(this->ds_tile(0, at.slot), ds);
    fence_async_shared();
    leave(this->ds_full(0, at.slot));
  }

  // The warpgroup of P and dV.
  INGOT_FN void compute_dv() const {
    const PairFactors factors = make_pair_factors<Config>(this->params.score);
    float s[32], dv[Shape::dim_v / 2];
    u32 p[16], graded[16];
#pragma unroll
    for (float& x : dv) x = 0.0f;
    int left = (tile.end - tile.begin) * this->params.group;
    if (left > 0) {
      Stage at;
      RingPlace<2> sent;
      mbarrier_wait(this->keys_full(), 0);
      mbarrier_wait(this->q_full(at), at.phase);
      issue_scores(s, at);
      wgmma_wait<0>();
      settle(s);
      weigh(s, p, graded, at, factors);
#pragma unroll 1
      for (; left > 0; --left) {
        send_weights(graded, sent);
        leave(this->q_empty(at));
        const Stage next = at.next();
        if (left > 1) mbarrier_wait(this->q_full(next), next.phase);
        issue_scores(s, next);  // after the last block unused, on whatever is there
        mbarrier_wait(this->dout_full(at), at.phase);
        wgmma_fence();
        add_product<T, Shape::dim_v>(dv, p, wgmma_tile(this->dout_tile(at), Shape::panel));
        wgmma_commit();
        wgmma_wait<1>();
        settle(s);
        weigh(s, p, graded, next, factors);
        leave_together(this->dout_empty(at));
        at = next;
        sent = sent.next();
      }
    }
    settle(dv);
    store_sums<typename Config::dv_type, Config::head_dim_v>(
        this->params.dv, this->params.dv_stride, this->params.dv_vector, this->params.score, tile,
        tile.key, dv, 1.0f);
  }

  // The warpgroup of dS and dK.
  INGOT_FN void compute_dk() const {
    float dp[32], dk[Shape::dim / 2];
    u32 ds[16];
#pragma unroll
    for (float& x : dk) x = 0.0f;
    int left = (tile.end - tile.begin) * this->params.group;
    if (left > 0) {
      Stage at;
      RingPlace<2> weights, sent;
      mbarrier_wait(this->keys_full(), 0);
      mbarrier_wait(this->dout_full(at), at.phase);
      issue_dp(dp, at);
      wgmma_wait<0>();
      settle(dp);
      mbarrier_wait(this->q_full(at), at.phase);
      differentiate(dp, at, weights);
      pack_pairs<T>(dp, ds);
#pragma unroll 1
      for (; left > 0; --left) {
        leave(this->dout_empty(at));
        send_ds(ds, sent);
        const Stage next = at.next();
        weights = weights.next();
        sent = sent.next();
        if (left > 1) mbarrier_wait(this->dout_full(next), next.phase);
        issue_dp(dp, next);
        wgmma_fence();
        add_product<T, Shape::dim>(dk, ds, wgmma_tile(this->q_tile(at), Shape::panel));
        wgmma_commit();
        wgmma_wait<1>();
        settle(dp);
        if (left > 1) {
          mbarrier_wait(this->q_full(next), next.phase);
          differentiate(dp, next, weights);
        }
        wgmma_wait<0>();
        leave_together(this->q_empty(at));
        pack_pairs<T>(dp, ds);
        at = next;
      }
    }
    settle(dk);
    store_sums<typename Config::dk_type, Config::head_dim>(
        this->params.dk, this->params.dk_stride, this->params.dk_vector, this->params.score, tile,
        tile.key, dk, this->params.score.scale);
  }
};

}  // namespace ingot

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
  const KeyTile tile = key_tile<Config>(params, blockIdx.x);
  const WideSteps<Config> steps{{params, shared}, tile};
  if (warp >= 8) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 32 != 0) return;
    if (warp == 8) steps.load(tile, k, v, q, dout);
    if (warp == 9) steps.store(tile, ds, 0);
  } else {
    take_registers<Shape::registers>();
    if (warp < 4) {
      steps.compute_dv();
    } else {
      steps.compute_dk();
    }
  }
}
