// dk, dv and dS on Hopper for tensors of f32 as sums of terms (terms.cuh), heads to 64: as
// backward_stored_sm90.cuh, but that P and dS are split too, and that what a block of queries adds
// to dk and dv starts from 0 and is added with rounding, since tensor cores truncate. While one of
// the two warpgroups multiplies, the other makes weights.
#include "cuda/kernels/backward_pairs.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/terms.cuh"

namespace ingot {

// 64 x 64 products of the rows of `a` and `b`, whose planes lie so many bytes apart; the small
// terms first.
template <class T, int Dim, int Planes>
INGOT_FN void multiply_terms(float (&s)[32], u64 a, int a_plane, u64 b, int b_plane) {
  forget(s);
  constexpr int terms = terms_of(Planes);
#pragma unroll
  for (int term = terms - 1; term >= 0; --term) {
#pragma unroll
    for (int i = 0; i < Dim / 16; ++i) {
      const int a_bytes = first_plane(term) * a_plane + i * 32;
      const int b_bytes = second_plane(term) * b_plane + i * 32;
      Wgmma<T, 64>::template ss<0, 0>(s, a + a_bytes / 16, b + b_bytes / 16,
                                      i > 0 || term < terms - 1);
    }
  }
}

// sums (64 x Dim) += x (64 x 64, split in place) times 64 rows at b, done on return.
template <class T, int Dim, int Planes>
INGOT_FN void add_terms(float (&sums)[Dim / 2], const u32 (&x)[Planes][16], u64 b, int b_plane) {
  float part[Dim / 2];
  constexpr int terms = terms_of(Planes);
  wgmma_fence();
  forget(part);
#pragma unroll
  for (int term = terms - 1; term >= 0; --term) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int b_bytes = second_plane(term) * b_plane + i * 16 * 128;
      Wgmma<T, Dim>::template rs<1>(part, x[first_plane(term)] + 4 * i, b + b_bytes / 16,
                                    i > 0 || term < terms - 1);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  settle(part);
  add(sums, part);
}

// s becomes P; slope, with softcap, P times the derivative of the score but for the scale.
template <class Config, bool Large, int Count>
INGOT_FN void make_exact_weights(float (&s)[32], float (&slope)[Count], const StageRows& rows,
                                 const PairFactors& f) {
  const u32 from = rows.lse + threadIdx.x % 4 * 8;
#pragma unroll
  for (int g = 0; g < 8; ++g) {
    float stored[2], log2_sum[2];
    load_shared(from + g * 32, stored);
    load_log2_sums<Large>(rows.log2_sums + g * 8, log2_sum);
#pragma unroll
    for (int i = 4 * g; i < 4 * g + 4; ++i) {
      if constexpr (Config::softcap) {
        const float t = tanh_(s[i] * f.inner);
        s[i] = weight_of<Large>(t, f.cap_log2, f.cap, stored[i % 2], log2_sum[i % 2]);
        slope[i] = s[i] * (1.0f - t * t);
      } else {
        s[i] = weight_of<Large>(s[i], f.scale_log2, f.scale, stored[i % 2], log2_sum[i % 2]);
      }
    }
  }
}

template <class Config>
struct TermsSteps {
  using Shape = KeysShape<Config>;
  using T = typename Config::element;
  using Stage = typename KeysSteps<Config>::Stage;
  static constexpr int planes = Shape::planes;
  static_assert(Shape::panels == 1 && Shape::panels_v == 1, "heads: at most 64 columns");

  const KeysSteps<Config>& steps;
  const int warpgroup, key_first;
  RingPlace<2> sent;

  // A plane of dS to the thread that stores it.
  INGOT_FN void send(const u32 (&x)[16]) {
    mbarrier_wait(steps.ds_empty(warpgroup, sent.slot), sent.phase ^ 1);
    put_tile(steps.ds_tile(warpgroup, sent.slot), x);
    fence_async_shared();
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(steps.ds_full(warpgroup, sent.slot));
    sent = sent.next();
  }

  // S and dP of a block of queries; P and dS on return.
  template <bool Large>
  INGOT_FN void make_pairs(float (&s)[32], float (&dp)[32], Stage at, const PairFactors& factors) {
    const u32 offset = warpgroup * 64 * 128;
    const u64 k = wgmma_tile(steps.shared + Shape::k_at + offset, 0);
    const u64 v = wgmma_tile(steps.shared + Shape::v_at + offset, 0);
    mbarrier_wait(steps.q_full(at), at.phase);
    wgmma_fence();
    multiply_terms<T, Shape::dim, planes>(s, k, Shape::key_panel, wgmma_tile(steps.q_tile(at), 0),
                                          Shape::panel);
    wgmma_commit();
    mbarrier_wait(steps.dout_full(at), at.phase);
    wgmma_fence();
    multiply_terms<T, Shape::dim_v, planes>(dp, v, Shape::key_panel,
                                            wgmma_tile(steps.dout_tile(at), 0), Shape::panel);
    wgmma_commit();
    wgmma_wait<1>();
    settle(s);
    float slope[Config::softcap ? 32 : 1];
    make_exact_weights<Config, Large>(s, slope, rows_of<Large>(steps, at), factors);
    wgmma_wait<0>();
    settle(dp);
    if constexpr (Config::softcap) {
      make_ds(slope, dp, steps.delta(at));
    } else {
      make_ds(s, dp, steps.delta(at));
    }
    const ScoreParams& score = steps.params.score;
    const int query = load_shared(steps.query(at));
    if (is_full_pair<Config>(score, key_first, query)) return;
    const Viewers viewers = viewers_of<Config>(score, key_first, query);
    clear_hidden<Config>(s, viewers);
    clear_hidden<Config>(dp, viewers);
  }

  template <bool Large>
  INGOT_FN void compute(const KeyTile& tile) {
    const StoredParams& params = steps.params;
    const PairFactors factors = make_pair_factors<Config>(params.score);
    float dk[Shape::dim / 2], dv[Shape::dim_v / 2];
    clear(dk);
    clear(dv);
    int left = (tile.end - tile.begin) * params.group;
    if (left > 0) mbarrier_wait(steps.keys_full(), 0);
#pragma unroll 1
    for (Stage at; left > 0; --left, at = at.next()) {
      float s[32], dp[32];
      u32 operand[planes][16];
      make_pairs<Large>(s, dp, at, factors);
      pack_weights<T>(s, operand);
      add_terms<T, Shape::dim_v, planes>(dv, operand, wgmma_tile(steps.dout_tile(at), Shape::panel),
                                         Shape::panel);
      pack_weights<T>(dp, operand);
#pragma unroll
      for (int plane = 0; plane < planes; ++plane) send(operand[plane]);
      add_terms<T, Shape::dim, planes>(dk, operand, wgmma_tile(steps.q_tile(at), Shape::panel),
                                       Shape::panel);
      if (threadIdx.x % 128 == 0) {
        mbarrier_arrive(steps.q_empty(at));
        mbarrier_arrive(steps.dout_empty(at));
      }
    }
    store_sums<typename Config::dk_type, Config::head_dim>(params.dk, params.dk_stride,
                                                           params.dk_vector, params.score, tile,
                                                           key_first, dk, params.score.scale);
    store_sums<typename Config::dv_type, Config::head_dim_v>(
        params.dv, params.dv_stride, params.dv_vector, params.score, tile, key_first, dv, 1.0f);
  }
};

template <class Config>
INGOT_FN void compute_keys(const KeysSteps<Config>& steps, const KeyTile& tile, int warp) {
  TermsSteps<Config> terms{steps, warp / 4, tile.key + 64 * (warp / 4), {}};
  if (any_is_large<Config>(steps.params, tile)) {
    terms.template compute<true>(tile);
  } else {
    terms.template compute<false>(tile);
  }
}

}  // namespace ingot

#include "cuda/kernels/backward_keys_entry.cuh"
