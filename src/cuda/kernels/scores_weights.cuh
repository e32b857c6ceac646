// From scores to P and dS, for accumulators whose rows are keys and whose columns are queries.
#pragma once

#include "algorithm/score.h"
#include "cuda/kernels/large_rows.cuh"
#include "cuda/kernels/scores_shape.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

// The factor of dP - delta in dS: P times the derivative of the score but for the scale. As it goes
// into products, where operands are not split.
template <class Config, bool Packed = Config::planes == 1>
struct Weights {
  using T = typename Config::element;
  u32 x[ScoresShape<Config>::count / 2];

  INGOT_FN void set(int i, float low, float high) { x[i] = pack<T>(low, high); }
  INGOT_FN void get(int i, float& low, float& high) const {
    low = low_of<T>(x[i]), high = high_of<T>(x[i]);
  }
};
template <class Config>
struct Weights<Config, false> {
  float x[ScoresShape<Config>::count];

  INGOT_FN void set(int i, float low, float high) { x[2 * i] = low, x[2 * i + 1] = high; }
  INGOT_FN void get(int i, float& low, float& high) const { low = x[2 * i], high = x[2 * i + 1]; }
};

// Which queries see the two keys of this thread: positions in [begin, end), counted from the
// thread's own first query. All of them where the tile is full.
struct SeenBy {
  bool all;
  int begin[2], end[2];
  const float* log2_sums;  // of large rows, from the thread's first query on; null: there is none

  INGOT_FN bool has(int i) const {
    const int position = i / 4 * 8 + i % 2, h = i / 2 % 2;
    return position >= begin[h] && position < end[h];
  }
};

// `key` is the first of the warpgroup's 64, `query` the first of the tile.
template <class Config>
INGOT_FN SeenBy seen_by(const ScoreParams& score, int key, int query) {
  constexpr int queries = Config::block_m;
  const int seqlen_q = static_cast<int>(score.seqlen_q),
            seqlen_k = static_cast<int>(score.seqlen_k);
  const int left = static_cast<int>(score.band_left), right = static_cast<int>(score.band_right);
  SeenBy seen{};
  seen.all = key + 64 <= seqlen_k && query + queries <= seqlen_q;
  if (Config::masked) {
    seen.all = seen.all && key >= query + queries - 1 + left && key + 63 <= query + right;
  }
  const int thread = threadIdx.x % 128, first = query + 2 * (thread % 4);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int col = key + thread / 32 * 16 + thread % 32 / 4 + 8 * h;
    seen.begin[h] = Config::masked ? col - right - first : 0;
    seen.end[h] = (Config::masked ? min(seqlen_q, col - left + 1) : seqlen_q) - first;
    if (col >= seqlen_k) seen.end[h] = 0;
  }
  return seen;
}

// The same, with the sums of large rows if the tile has one. `statistics`: where lse of its queries
// lie. A query beyond the last may have any, and the sum that lies behind: it is not seen.
template <class Config>
INGOT_FN SeenBy with_large_rows(SeenBy seen, const ScoresParams& params, const ScoresTile& tile,
                                u32 statistics) {
  bool any = false;
#pragma unroll
  for (int i = 0; i < Config::block_m; i += 64) {
    float lse[2];
    load_shared(statistics + (i + threadIdx.x % 32 * 2) * 4, lse);
    any = any || is_large(lse[0]) || is_large(lse[1]);
  }
  if (__any_sync(~0u, any)) {
    const Index head = params.stored.head_first + tile.matrix;
    seen.log2_sums = params.delta + log2_sums_behind(params.delta - params.lse_log2) +
                     head * params.stored.rows_padded + tile.query + threadIdx.x % 4 * 2;
  }
  return seen;
}

// Part `First / part_count` of a tile: scores become P. `statistics` is the address of lse of this
// thread's first query. Edge: some pairs are not seen, or some rows may be large.
template <class Config, bool Edge, int First>
INGOT_FN void weigh_part(float* s, Weights<Config>& weights, const ScoreFactors& factors,
                         float softcap, const SeenBy& seen, u32 statistics) {
#pragma unroll
  for (int i = First; i < First + ScoresShape<Config>::part_count; i += 4) {
    float lse[2], log2_sum[2] = {0.0f, 0.0f};
    load_shared(statistics + i / 4 * 32, lse);
    if (Edge && seen.log2_sums != nullptr) {
      load_log2_sums<true>(seen.log2_sums + i / 4 * 8, log2_sum);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float slope[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = s[i + 2 * h + c];
        if constexpr (Config::softcap) {
          const float t =
              Config::planes == 1 ? tanh_fast(x * factors.inner) : tanh_(x * factors.inner);
          x = weight_of<Edge>(t, factors.cap_log2, softcap, lse[c], log2_sum[c]);
          slope[c] = 1.0f - t * t;
        } else {
          x = weight_of<Edge>(x, factors.scale_log2, factors.scale, lse[c], log2_sum[c]);
          slope[c] = 1.0f;
        }
        if (Edge && !seen.has(i + 2 * h + c)) x = 0.0f;
      }
      const float low = s[i + 2 * h], high = s[i + 2 * h + 1];
      weights.set(i / 2 + h, Config::softcap ? low * slope[0] : low,
                  Config::softcap ? high * slope[1] : high);
    }
  }
}

template <class Config, int First>
INGOT_FN void weigh_tile(float* s, Weights<Config>& weights, const ScoreFactors& factors,
                         const ScoreParams& score, const SeenBy& seen, u32 statistics) {
  if (seen.all && seen.log2_sums == nullptr) {
    weigh_part<Config, false, First>(s, weights, factors, score.softcap, seen, statistics);
  } else {
    weigh_part<Config, true, First>(s, weights, factors, score.softcap, seen, statistics);
  }
}

// The same: dP becomes dS without the factor scale. `statistics`: of delta.
template <class Config, bool Edge, int First>
INGOT_FN void differentiate_part(float* dp, const Weights<Config>& weights, const SeenBy& seen,
                                 u32 statistics) {
#pragma unroll
  for (int i = First; i < First + ScoresShape<Config>::part_count; i += 4) {
    float delta[2];
    load_shared(statistics + i / 4 * 32, delta);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float weight[2];
      weights.get(i / 2 + h, weight[0], weight[1]);
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = dp[i + 2 * h + c];
        x = weight[c] * (x - delta[c]);
        if (Edge && !seen.has(i + 2 * h + c)) x = 0.0f;
      }
    }
  }
}

}  // namespace ingot
