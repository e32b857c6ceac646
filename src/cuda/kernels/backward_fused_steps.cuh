// The steps of backward_fused_sm90: the thread that loads, and the warpgroups that have keys.
#pragma once

#include "cuda/kernels/backward_fused_shape.cuh"
#include "cuda/kernels/element.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/store_columns.cuh"
#include "cuda/kernels/tma.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

INGOT_FN void unpack(bf16, u32 pair, float& low, float& high) {
  low = low_of(pair);
  high = high_of(pair);
}
INGOT_FN void unpack(f16, u32 pair, float& low, float& high) {
  low = to_float(f16{static_cast<u16>(pair)});
  high = to_float(f16{static_cast<u16>(pair >> 16)});
}

// What the two keys (h) of this thread see of a tile of queries: positions in [begin, end), counted
// from the thread's first query on. `all`: every pair of the warpgroup's tile is seen.
struct SeenQueries {
  bool all;
  int begin[2], end[2];

  INGOT_FN bool holds(int h, int position) const {
    return position >= begin[h] && position < end[h];
  }
};

template <class Config>
struct FusedSteps {
  using Shape = FusedShape<Config>;
  using T = typename Config::element;
  using Stage = Place<Shape::stages>;
  using Slot = Place<Shape::slots>;

  const FusedParams& params;
  const KeyBlock& keys;
  const u32 shared;
  const int warpgroup;

  INGOT_FN int steps() const { return keys.count() * params.group; }

  // ---- loading -------------------------------------------------------------------------------

  // One thread feeds the block.
  INGOT_FN void load(const TensorMap& q, const TensorMap& k, const TensorMap& v,
                     const TensorMap& dout) const {
    const int count = steps();
    if (count == 0) return;
    const BoxAt at_keys{{0, keys.key, keys.head_kv, keys.batch, 0}};
    mbarrier_arrive_expect(shared + Shape::kv_full, 4 * Shape::tile);
    tma_load(shared + Shape::k_at, k, at_keys, shared + Shape::kv_full);
    tma_load(shared + Shape::v_at, v, at_keys, shared + Shape::kv_full);
    Walk walk(params, keys);
#pragma unroll 1
    for (int step = 0; step < count; ++step, walk.next(params, keys)) {
      const Index row =
          head_of_batch(params, keys, walk) * params.query_blocks * 64 + walk.block * 64;
      const BoxAt at{{0, walk.block * 64, query_head(params, keys, walk), keys.batch, 0}};
      mbarrier_wait(empty(step), Stage(step).phase ^ 1);
      mbarrier_arrive_expect(q_full(step), Shape::tile + 256);
      tma_load(q_tile(step), q, at, q_full(step));
      bulk_load(lse(step), params.lse_log2 + row, 256, q_full(step));
      mbarrier_arrive_expect(dout_full(step), Shape::tile + 256);
      tma_load(dout_tile(step), dout, at, dout_full(step));
      bulk_load(delta(step), params.delta + row, 256, dout_full(step));
    }
  }

  // ---- products ------------------------------------------------------------------------------

  // S = K Q^T, or dP = V dO^T: 64 keys of this warpgroup by 64 queries.
  template <int Columns>
  INGOT_FN void multiply_rows(float (&s)[32], int keys_at, u32 queries) const {
    const u64 a = wgmma_tile(shared + keys_at + warpgroup * Shape::tile, 0);
    const u64 b = wgmma_tile(queries, 0);
#pragma unroll
    for (int i = 0; i < Columns / 16; ++i) {
      Wgmma<T, 64>::template ss<0, 0>(s, a + i * 2, b + i * 2, i > 0);
    }
  }
  // dV += P dO, or dK += dS Q.
  template <int Columns>
  INGOT_FN void multiply_sum(float (&sum)[Columns / 2], const u32 (&p)[16], u32 queries) const {
    const u64 b = wgmma_tile(queries, Shape::tile);
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<T, Columns>::template rs<1>(sum, p + 4 * i, b + i * 128, 1);
  }

  // ---- pointwise -----------------------------------------------------------------------------

  INGOT_FN SeenQueries seen_in(const Walk& walk) const {
    const ScoreParams& score = params.score;
    const int query = walk.block * 64, key = keys.key + warpgroup * 64;
    SeenQueries seen;
    seen.all = query + 64 <= static_cast<int>(score.seqlen_q) &&
               key + 64 <= static_cast<int>(score.seqlen_k) &&
               (!Config::masked || is_full(score, query, query + 63, key, key + 63));
    if (seen.all) return seen;
    const int thread = threadIdx.x % 128, first = query + 2 * (thread % 4);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int own = key + thread / 32 * 16 + thread % 32 / 4 + 8 * h;
      const bool exists = own < static_cast<int>(score.seqlen_k);
      seen.begin[h] = static_cast<int>(Config::masked ? row_begin(score, own) : 0) - first;
      seen.end[h] =
          static_cast<int>(Config::masked ? row_end(score, own) : score.seqlen_q) - first;
      if (!exists) seen.end[h] = seen.begin[h];
    }
    return seen;
  }

  // P from S, packed. `w` is what dP - delta is multiplied by: P, with softcap times the derivative.
  template <bool Edge>
  INGOT_FN void weigh(float (&s)[32], u32 (&p)[16], u32 (&w)[Config::softcap ? 16 : 1],
                      const SeenQueries& seen, int step) const {
    const ScoreFactors factors = make_score_factors(params.score);
    const u32 from = lse(step) + threadIdx.x % 4 * 8;
#pragma unroll
    for (int g = 0; g < 8; ++g) {
      float offset[2], weight[4];
      load_shared(from + g * 32, offset);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float slope = 1.0f;
        float& x = s[4 * g + j];
        if constexpr (Config::softcap) {
          const float t = tanh_fast(x * factors.inner);
          weight[j] = exp2_(__fmaf_rn(t, factors.cap_log2, -offset[j % 2]));
          slope = __fmaf_rn(-t, t, 1.0f);
        } else {
          weight[j] = exp2_(__fmaf_rn(x, factors.scale_log2, -offset[j % 2]));
        }
        if (Edge && !seen.holds(j / 2, 8 * g + j % 2)) weight[j] = 0.0f;
        if constexpr (Config::softcap) x = weight[j] * slope;
      }
      p[2 * g] = pack<T>(weight[0], weight[1]);
      p[2 * g + 1] = pack<T>(weight[2], weight[3]);
      if constexpr (Config::softcap) {
        w[2 * g] = pack<T>(s[4 * g], s[4 * g + 1]);
        w[2 * g + 1] = pack<T>(s[4 * g + 2], s[4 * g + 3]);
      }
    }
  }

  // dS = w (dP - delta), packed. A pair that is not seen is 0 whatever its dP.
  template <bool Edge>
  INGOT_FN void differentiate(const u32 (&w)[16], const float (&dp)[32], u32 (&ds)[16],
                              const SeenQueries& seen, int step) const {
    const u32 from = delta(step) + threadIdx.x % 4 * 8;
#pragma unroll
    for (int g = 0; g < 8; ++g) {
      float mean[2];
      load_shared(from + g * 32, mean);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float low, high;
        unpack(T{}, w[2 * g + h], low, high);
        low *= dp[4 * g + 2 * h] - mean[0];
        high *= dp[4 * g + 2 * h + 1] - mean[1];
        if (Edge && !seen.holds(h, 8 * g)) low = 0.0f;
        if (Edge && !seen.holds(h, 8 * g + 1)) high = 0.0f;
        ds[2 * g + h] = pack<T>(low, high);
      }
    }
  }

  // dS to the warpgroup that makes dQ.
  INGOT_FN void hand_over(const u32 (&ds)[16], int step) const {
    const int slot = Slot(step).slot, lane = threadIdx.x % 32;
    mbarrier_wait(shared + Shape::ds_empty + 8 * slot, Slot(step).phase ^ 1);
    const u32 tile = shared + Shape::ds_at + (2 * slot + warpgroup) * Shape::tile;
    const u32 row = tile + (threadIdx.x % 128 / 32 * 16 + lane % 16) * 128;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store_matrix(row + (((2 * i + lane / 16) ^ (lane & 7)) << 4), ds + 4 * i);
    }
    fence_async_shared();
    __syncwarp();
    if (lane == 0) mbarrier_arrive(shared + Shape::ds_full + 8 * slot);
  }

  INGOT_FN void release(int step) const {
    if (threadIdx.x % 128 == 0) mbarrier_arrive(empty(step));
  }

  // ---- results -------------------------------------------------------------------------------

  template <int Dim, class Output, int Count>
  INGOT_FN void store(const OutputView& view, const float (&sum)[Count], float factor) const {
    if (view.data == nullptr) return;
    const int thread = anew(threadIdx.x) % 128;
    int key = keys.key + warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h, key += 8) {
      Output* const to = static_cast<Output*>(view.data) + keys.batch * view.stride[0] +
                         keys.head_kv * view.stride[1] + key * view.stride[2];
      store_columns<Dim>(to, view.stride[3], view.vector, key < params.score.seqlen_k, sum, h,
                         factor);
    }
  }

  // ---- places --------------------------------------------------------------------------------

  INGOT_FN u32 q_tile(int step) const {
    return shared + Shape::q_at + Stage(step).slot * Shape::tile;
  }
  INGOT_FN u32 dout_tile(int step) const {
    return shared + Shape::dout_at + Stage(step).slot * Shape::tile;
  }
  INGOT_FN u32 lse(int step) const {
    return shared + Shape::statistics_at + Stage(step).slot * Shape::statistics;
  }
  INGOT_FN u32 delta(int step) const { return lse(step) + Shape::statistics / 2; }
  INGOT_FN u32 q_full(int step) const { return shared + Shape::q_full + 8 * Stage(step).slot; }
  INGOT_FN u32 dout_full(int step) const {
    return shared + Shape::dout_full + 8 * Stage(step).slot;
  }
  INGOT_FN u32 empty(int step) const { return shared + Shape::empty + 8 * Stage(step).slot; }
};

// Barriers of the block; called by all threads once.
template <class Config>
INGOT_FN void init_fused_barriers(u32 shared) {
  using Shape = FusedShape<Config>;
  if (threadIdx.x == 0) {
    mbarrier_init(shared + Shape::kv_full, 1);
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(shared + Shape::q_full + 8 * i, 1);
      mbarrier_init(shared + Shape::dout_full + 8 * i, 1);
      mbarrier_init(shared + Shape::empty + 8 * i, 2);
    }
    for (int i = 0; i < Shape::slots; ++i) {
      mbarrier_init(shared + Shape::ds_full + 8 * i, 8);
      mbarrier_init(shared + Shape::ds_empty + 8 * i, 1);
    }
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(shared + Shape::turn + 8 * i, 1);
      mbarrier_init(shared + Shape::added + 8 * i, 4);
    }
    mbarrier_init_done();
  }
  __syncthreads();
}

}  // namespace ingot
