// dk, dv and dS on Hopper, for heads to 128: two warpgroups keep 64 keys each and go through the
// queries on their own, a third moves tiles. dS goes to memory, and dq = scale * dS k is a product
// of its own (product_sm90.cuh): nothing is added across blocks, so the bits are always the same.
//
// The scores of the next block of queries are multiplied as soon as dS of this one has left the
// registers, and become weights while dK of this block and dP of the next run.
#include "cuda/kernels/backward_pairs.cuh"

namespace ingot {

template <bool Large, class Config>
INGOT_FN void compute(const KeysSteps<Config>& steps, const KeyTile& tile, int warpgroup) {
  using Shape = KeysShape<Config>;
  using T = typename Config::element;
  using Stage = typename KeysSteps<Config>::Stage;
  const ScoreParams& score = steps.params.score;
  const PairFactors factors = make_pair_factors<Config>(score);
  const int key_first = tile.key + 64 * warpgroup;
  const u64 k = wgmma_tile(steps.shared + Shape::k_at + warpgroup * 64 * 128, 0);
  const u64 v = wgmma_tile(steps.shared + Shape::v_at + warpgroup * 64 * 128, 0);
  float s[32], dp[32], dk[Shape::dim / 2], dv[Shape::dim_v / 2];
  u32 operand[16];  // P, then dS
#pragma unroll
  for (float& x : dk) x = 0.0f;
#pragma unroll
  for (float& x : dv) x = 0.0f;

  const auto issue_scores = [&](Stage at) {
    wgmma_fence();
    multiply_pairs<T, Shape::dim>(s, k, Shape::key_panel, wgmma_tile(steps.q_tile(at), 0));
    wgmma_commit();
  };
  const auto issue_dp = [&](Stage at) {
    wgmma_fence();
    multiply_pairs<T, Shape::dim_v>(dp, v, Shape::key_panel, wgmma_tile(steps.dout_tile(at), 0));
    wgmma_commit();
  };
  const auto is_full = [&](Stage at) {
    return is_full_pair<Config>(score, key_first, load_shared(steps.query(at)));
  };
  const auto viewers = [&](Stage at) {
    return viewers_of<Config>(score, key_first, load_shared(steps.query(at)));
  };
  // S to P. The last group of products may go on, those before are done: what is packed takes the
  // registers of their operands.
  const auto weigh = [&](Stage at) {
    if constexpr (!Config::softcap) {
      make_weights<Large>(s, rows_of<Large>(steps, at), factors);
      if (!is_full(at)) clear_hidden<Config>(s, viewers(at));
      wgmma_wait<1>();
      pack_pairs<T>(s, operand);
      return;
    }
    wgmma_wait<1>();
    if (is_full(at)) {
      make_capped_weights<Config, false, Large>(s, operand, rows_of<Large>(steps, at), factors,
                                                Viewers{});
    } else {
      make_capped_weights<Config, true, Large>(s, operand, rows_of<Large>(steps, at), factors,
                                               viewers(at));
    }
  };
  const auto differentiate = [&](Stage at) {
    make_ds(s, dp, steps.delta(at));
    if (!is_full(at)) clear_hidden<Config>(dp, viewers(at));
    wgmma_wait<0>();
    pack_pairs<T>(dp, operand);
  };
  RingPlace<2> sent;
  const auto send = [&] {
    mbarrier_wait(steps.ds_empty(warpgroup, sent.slot), sent.phase ^ 1);
    put_tile(steps.ds_tile(warpgroup, sent.slot), operand);
    fence_async_shared();
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(steps.ds_full(warpgroup, sent.slot));
    sent = sent.next();
  };

  int left = (tile.end - tile.begin) * steps.params.group;
  if (left > 0) {
    Stage at;
    mbarrier_wait(steps.keys_full(), 0);
    mbarrier_wait(steps.q_full(at), at.phase);
    issue_scores(at);
    mbarrier_wait(steps.dout_full(at), at.phase);
    issue_dp(at);
    wgmma_wait<1>();
    settle(s);
    weigh(at);
    wgmma_wait<0>();
    settle(dp);
#pragma unroll 1
    for (; left > 0; --left) {
      wgmma_fence();
      add_product<T, Shape::dim_v>(dv, operand, wgmma_tile(steps.dout_tile(at), Shape::panel));
      wgmma_commit();
      differentiate(at);
      send();
      const Stage next = at.next();
      // After the last block once more on whatever is there, unused: a product under a condition
      // would serialise all.
      if (left > 1) mbarrier_wait(steps.q_full(next), next.phase);
      issue_scores(next);
      wgmma_fence();
      add_product<T, Shape::dim>(dk, operand, wgmma_tile(steps.q_tile(at), Shape::panel));
      wgmma_commit();
      if (left > 1) mbarrier_wait(steps.dout_full(next), next.phase);
      issue_dp(next);
      wgmma_wait<2>();
      settle(s);
      weigh(next);
      wgmma_wait<0>();
      settle(dp);
      if (threadIdx.x % 128 == 0) {
        mbarrier_arrive(steps.q_empty(at));
        mbarrier_arrive(steps.dout_empty(at));
      }
      at = next;
    }
  }
  settle(dk);
  settle(dv);
  const StoredParams& params = steps.params;
  store_sums<typename Config::dk_type, Config::head_dim>(
      params.dk, params.dk_stride, params.dk_vector, score, tile, key_first, dk, score.scale);
  store_sums<typename Config::dv_type, Config::head_dim_v>(
      params.dv, params.dv_stride, params.dv_vector, score, tile, key_first, dv, 1.0f);
}

template <class Config>
INGOT_FN void compute_keys(const KeysSteps<Config>& steps, const KeyTile& tile, int warp) {
  if (any_is_large<Config>(steps.params, tile)) {
    compute<true>(steps, tile, warp / 4);
  } else {
    compute<false>(steps, tile, warp / 4);
  }
}

}  // namespace ingot

#include "cuda/kernels/backward_keys_entry.cuh"
