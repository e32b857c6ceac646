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
  // Columns of K, and of V, that stay in registers, a sixteenth each: as many as fit beside the
  // sums.
  static constexpr int widest = Shape::dim > Shape::dim_v ? Shape::dim : Shape::dim_v;
  static constexpr int most = (Config::softcap ? 4 : 6) + (256 - widest) / 8;
  static constexpr int steps_k = Shape::dim / 16 < most ? Shape::dim / 16 : most;
  static constexpr int steps_v = Shape::dim_v / 16 < most ? Shape::dim_v / 16 : most;
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

  INGOT_FN void issue_scores(float (&s)[32], const u32 (&k)[4 * steps_k], Stage at) const {
    wgmma_fence();
    multiply_pairs<T, Shape::dim, steps_k>(s, k, wgmma_tile(this->shared + Shape::k_at, 0),
                                           Shape::key_panel, wgmma_tile(this->q_tile(at), 0));
    wgmma_commit();
  }
  INGOT_FN void issue_dp(float (&dp)[32], const u32 (&v)[4 * steps_v], Stage at) const {
    wgmma_fence();
    multiply_pairs<T, Shape::dim_v, steps_v>(dp, v, wgmma_tile(this->shared + Shape::v_at, 0),
                                             Shape::key_panel, wgmma_tile(this->dout_tile(at), 0));
    wgmma_commit();
  }

  // S to P, and `graded`, P times the derivative of the score.
  template <bool Large>
  INGOT_FN void weigh(float (&s)[32], u32 (&p)[16], u32 (&graded)[16], Stage at,
                      const PairFactors& factors) const {
    const StageRows rows = rows_of<Large, Config>(*this, at);
    if constexpr (Config::softcap) {
      if (is_full(at)) {
        make_capped_weights<Config, false, Large>(s, p, rows, factors, Viewers{});
      } else {
        make_capped_weights<Config, true, Large>(s, p, rows, factors, viewers(at));
      }
      pack_pairs<T>(s, graded);
    } else {
      make_weights<Large>(s, rows, factors);
      if (!is_full(at)) clear_hidden<Config>(s, viewers(at));
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
    const u32 from = this->delta(at) + threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      u32 graded[4];
      load_shared(this->p_tile(weights.slot) + i * 128 * 16, graded);
#pragma unroll
      for (int g = 0; g < 2; ++g) {
        float offset[2], *x = dp + 8 * i + 4 * g;
        load_shared(from + (2 * i + g) * 32, offset);
        x[0] = low_of<T>(graded[2 * g]) * (x[0] - offset[0]);
        x[1] = high_of<T>(graded[2 * g]) * (x[1] - offset[1]);
        x[2] = low_of<T>(graded[2 * g + 1]) * (x[2] - offset[0]);
        x[3] = high_of<T>(graded[2 * g + 1]) * (x[3] - offset[1]);
      }
    }
    leave(this->p_empty(weights.slot));
    if (!is_full(at)) clear_hidden<Config>(dp, viewers(at));
  }

  INGOT_FN void send_ds(const u32 (&ds)[16], RingPlace<2> at) const {
    mbarrier_wait(this->ds_empty(0, at.slot), at.phase ^ 1);
    put_tile(this->ds_tile(0, at.slot), ds);
    fence_async_shared();
    leave(this->ds_full(0, at.slot));
  }

  // The warpgroup of P and dV. The products of the next block come behind the sums of this one:
  // stages are two, and ahead of them they would wait for their tiles.
  template <bool Large>
  INGOT_FN void compute_dv() const {
    const PairFactors factors = make_pair_factors<Config>(this->params.score);
    float s[32], dv[Shape::dim_v / 2];
    u32 p[16], graded[16], k[4 * steps_k];
#pragma unroll
    for (float& x : dv) x = 0.0f;
    int left = (tile.end - tile.begin) * this->params.group;
    if (left > 0) {
      Stage at;
      RingPlace<2> sent;
      mbarrier_wait(this->keys_full(), 0);
      load_operands<steps_k>(k, this->shared + Shape::k_at, Shape::key_panel);
      mbarrier_wait(this->q_full(at), at.phase);
      issue_scores(s, k, at);
#pragma unroll 1
      for (int before = -1; left > 0; --left) {
        wgmma_wait<1>();
        if (before >= 0) leave_together(this->shared + Shape::dout_empty + 8 * before);
        wgmma_wait<0>();
        settle(s);
        weigh<Large>(s, p, graded, at, factors);
        send_weights(graded, sent);
        leave(this->q_empty(at));
        mbarrier_wait(this->dout_full(at), at.phase);
        wgmma_fence();
        add_product<T, Shape::dim_v>(dv, p, wgmma_tile(this->dout_tile(at), Shape::panel));
        wgmma_commit();
        before = at.slot;
        at = at.next();
        sent = sent.next();
        if (left > 1) mbarrier_wait(this->q_full(at), at.phase);
        issue_scores(s, k, at);  // after the last block unused, on whatever is there
      }
      wgmma_wait<0>();
    }
    settle(dv);
    store_sums<typename Config::dv_type, Config::head_dim_v>(
        this->params.dv, this->params.dv_stride, this->params.dv_vector, this->params.score, tile,
        tile.key, dv, 1.0f);
  }

  // The warpgroup of dS and dK.
  INGOT_FN void compute_dk() const {
    float dp[32], dk[Shape::dim / 2];
    u32 ds[16], v[4 * steps_v];
#pragma unroll
    for (float& x : dk) x = 0.0f;
    int left = (tile.end - tile.begin) * this->params.group;
    if (left > 0) {
      Stage at;
      RingPlace<2> weights, sent;
      mbarrier_wait(this->keys_full(), 0);
      load_operands<steps_v>(v, this->shared + Shape::v_at, Shape::key_panel);
      mbarrier_wait(this->dout_full(at), at.phase);
      issue_dp(dp, v, at);
#pragma unroll 1
      for (int before = -1; left > 0; --left) {
        wgmma_wait<1>();
        if (before >= 0) leave_together(this->shared + Shape::q_empty + 8 * before);
        wgmma_wait<0>();
        settle(dp);
        mbarrier_wait(this->q_full(at), at.phase);
        differentiate(dp, at, weights);
        leave(this->dout_empty(at));
        pack_pairs<T>(dp, ds);
        wgmma_fence();
        add_product<T, Shape::dim>(dk, ds, wgmma_tile(this->q_tile(at), Shape::panel));
        wgmma_commit();
        send_ds(ds, sent);
        before = at.slot;
        at = at.next();
        weights = weights.next();
        sent = sent.next();
        if (left > 1) mbarrier_wait(this->dout_full(at), at.phase);
        issue_dp(dp, v, at);
      }
      wgmma_wait<0>();
    }
    settle(dk);
    store_sums<typename Config::dk_type, Config::head_dim>(
        this->params.dk, this->params.dk_stride, this->params.dk_vector, this->params.score, tile,
        tile.key, dk, this->params.score.scale);
  }
};

template <class Config>
INGOT_FN void compute_keys(const KeysSteps<Config>& keys, const KeyTile& tile, int warp) {
  const WideSteps<Config> steps{keys, tile};
  if (warp >= 4) {
    steps.compute_dk();
  } else if (any_is_large<Config>(keys.params, tile)) {
    steps.template compute_dv<true>();
  } else {
    steps.template compute_dv<false>();
  }
}

}  // namespace ingot

#include "cuda/kernels/backward_keys_entry.cuh"
