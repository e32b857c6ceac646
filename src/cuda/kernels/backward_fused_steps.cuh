// The steps of backward_fused_sm90: the thread that loads, and the warpgroups that have keys.
#pragma once

#include "cuda/kernels/backward_fused_shape.cuh"
#include "cuda/kernels/element.cuh"
#include "cuda/kernels/large_rows.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/store_columns.cuh"
#include "cuda/kernels/tma.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

// Two products, packed. bf16 has the range of f32, so that the second factor may be rounded first;
// it does not fit f16 where the product does.
INGOT_FN u32 multiply_pair(bf16, u32 p, float low, float high) {
  u32 r;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(p), "r"(pack<bf16>(low, high)));
  return r;
}
INGOT_FN u32 multiply_pair(f16, u32 p, float low, float high) {
  return pack<f16>(to_float(f16{static_cast<u16>(p)}) * low,
                   to_float(f16{static_cast<u16>(p >> 16)}) * high);
}

// What the two keys (h) of this thread see of a tile of queries: positions in [begin, end), counted
// from the thread's first query on.
struct SeenQueries {
  int begin[2], end[2];

  INGOT_FN bool holds(int h, int position) const {
    return position >= begin[h] && position < end[h];
  }
};

struct QueryBlocks {
  int begin, end;
  INGOT_FN bool holds(int block) const { return block >= begin && block < end; }
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
    const int rows_padded = params.query_blocks * 64;
    Walk walk(params, keys);
#pragma unroll 1
    for (int step = 0; step < count; ++step, walk.next(params, keys)) {
      const Index row =
          static_cast<Index>(head_of_batch(params, keys, walk)) * rows_padded + walk.block * 64;
      const BoxAt at{{0, walk.block * 64, query_head(params, keys, walk), keys.batch, 0}};
      if (!mbarrier_await(empty(step), Stage(step).phase ^ 1)) return;
      mbarrier_arrive_expect(full(step), 2 * Shape::tile + Shape::statistics);
      tma_load(q_tile(step), q, at, full(step));
      tma_load(dout_tile(step), dout, at, full(step));
      bulk_load(lse(step), params.lse_log2 + row, Shape::statistics / 2, full(step));
      bulk_load(delta(step), params.delta + row, Shape::statistics / 2, full(step));
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

  // Query blocks [begin, end) that every key of this warpgroup sees whole.
  INGOT_FN QueryBlocks full_blocks() const {
    const ScoreParams& score = params.score;
    const Index key = keys.key + warpgroup * 64;
    Index first = 0, last = score.seqlen_q - 64;  // of their first queries
    if (Config::masked) {
      first = max(first, key + 63 - score.band_right);
      last = min(last, key - score.band_left - 63);
    }
    if (key + 64 > score.seqlen_k || last < first) return {0, 0};
    return {ceil_64(first), static_cast<int>(last / 64) + 1};
  }

  INGOT_FN SeenQueries seen_in(int block) const {
    const ScoreParams& score = params.score;
    SeenQueries seen;
    const int thread = threadIdx.x % 128, first = block * 64 + 2 * (thread % 4);
    int key = keys.key + warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h, key += 8) {
      seen.begin[h] = static_cast<int>(Config::masked ? row_begin(score, key) : 0) - first;
      seen.end[h] = static_cast<int>(Config::masked ? row_end(score, key) : score.seqlen_q) - first;
      if (key >= static_cast<int>(score.seqlen_k)) seen.end[h] = seen.begin[h];
    }
    return seen;
  }

  // Has a query of the heads that this block goes through a large row?
  INGOT_FN bool any_is_large() const {
    const Index rows = static_cast<Index>(params.group) * params.query_blocks * 64;
    const Index head_kv = static_cast<Index>(keys.batch) * params.num_heads_kv + keys.head_kv;
    return ingot::any_is_large<Config::head_dim_v>(params.delta, params.delta - params.lse_log2,
                                                   head_kv * rows, rows);
  }

  // Of the queries of a step: log2 of the sums of large rows, from this thread's first query on.
  INGOT_FN const float* log2_sums(int step, int block) const {
    const int head = keys.batch * params.num_heads + keys.head_kv * params.group;
    const Index row = static_cast<Index>(head + step / keys.count()) * params.query_blocks + block;
    return params.delta + log2_sums_behind(params.delta - params.lse_log2) + row * 64 +
           threadIdx.x % 4 * 2;
  }

  // Of the queries of this thread: 8 times two neighbours.
  INGOT_FN void load_statistic(float (&x)[16], u32 from) const {
    from += threadIdx.x % 4 * 8;
#pragma unroll
    for (int g = 0; g < 8; ++g)
      load_shared(from + g * 32, *reinterpret_cast<float(*)[2]>(x + 2 * g));
  }

  // P from S, packed. With softcap S becomes its derivative, which dS needs.
  template <bool Edge, bool Large>
  INGOT_FN void weigh(float (&s)[32], u32 (&p)[16], const float (&lse)[16],
                      const ScoreFactors& factors, int step, int block) const {
    SeenQueries seen;
    if constexpr (Edge) seen = seen_in(block);
    const float* const sums = Large ? log2_sums(step, block) : nullptr;
    float log2_sum[2];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i % 2 == 0) load_log2_sums<Large>(sums + 4 * i, log2_sum);
      float weight[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = s[2 * i + c];
        const float value = Config::softcap ? tanh_fast(x * factors.inner) : x;
        const float factor_log2 = Config::softcap ? factors.cap_log2 : factors.scale_log2;
        const float factor = Config::softcap ? params.score.softcap : factors.scale;
        weight[c] = weight_of<Large>(value, factor_log2, factor, lse[i / 2 * 2 + c], log2_sum[c]);
        if (Config::softcap) x = __fmaf_rn(-value, value, 1.0f);
        if (Edge && !seen.holds(i % 2, i / 2 * 8 + c)) weight[c] = 0.0f;
      }
      p[i] = pack<T>(weight[0], weight[1]);
    }
  }

  // dS = P (dP - delta), with softcap times the derivative, packed. A pair that is not seen is 0
  // whatever its S and dP.
  template <bool Edge>
  INGOT_FN void differentiate(const float (&s)[32], const u32 (&p)[16], const float (&dp)[32],
                              u32 (&ds)[16], const float (&mean)[16], int block) const {
    SeenQueries seen;
    if constexpr (Edge) seen = seen_in(block);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float x[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        x[c] = dp[2 * i + c] - mean[i / 2 * 2 + c];
        if (Config::softcap) x[c] *= s[2 * i + c];
        if (Edge && !seen.holds(i % 2, i / 2 * 8 + c)) x[c] = 0.0f;
      }
      ds[i] = multiply_pair(T{}, p[i], x[0], x[1]);
    }
  }

  INGOT_FN void await_slot(int step) const {
    mbarrier_wait(shared + Shape::ds_empty + 8 * Slot(step).slot, Slot(step).phase ^ 1);
  }
  // dS to shared memory, for the warpgroup that makes dQ.
  INGOT_FN void put(const u32 (&ds)[16], int step) const {
    const int slot = Slot(step).slot, lane = threadIdx.x % 32;
    const u32 tile = shared + Shape::ds_at + (2 * slot + warpgroup) * Shape::tile;
    const u32 row = tile + (threadIdx.x % 128 / 32 * 16 + lane % 16) * 128;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store_matrix(row + (((2 * i + lane / 16) ^ (lane & 7)) << 4), ds + 4 * i);
    }
  }
  // It is there. Some products later: the fence waits for what was stored.
  INGOT_FN void hand_over(int step) const {
    fence_async_shared();
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(shared + Shape::ds_full + 8 * Slot(step).slot);
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
  INGOT_FN u32 full(int step) const { return shared + Shape::full + 8 * Stage(step).slot; }
  INGOT_FN u32 empty(int step) const { return shared + Shape::empty + 8 * Stage(step).slot; }
};

// Barriers of the block; called by all threads once.
template <class Config>
INGOT_FN void init_fused_barriers(u32 shared) {
  using Shape = FusedShape<Config>;
  if (threadIdx.x == 0) {
    clear_mark();
    mbarrier_init(shared + Shape::kv_full, 1);
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(shared + Shape::full + 8 * i, 1);
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
