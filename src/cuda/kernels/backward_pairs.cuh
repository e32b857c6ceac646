// Pairs of 64 keys (rows) and 64 queries (columns) in wgmma accumulators: scores to weights P,
// products dP to dS without the factor scale, and the other steps of a warpgroup of the backward
// kernels for Hopper.
#pragma once

#include "cuda/kernels/backward_keys.cuh"
#include "cuda/kernels/large_rows.cuh"
#include "cuda/kernels/store_columns.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

// Position in a tile of 64 rows of this thread's first row; the other is 8 below.
INGOT_FN int row_in_tile() {
  const int thread = anew(threadIdx.x) % 128;
  return thread / 32 * 16 + thread % 32 / 4;
}

// Which queries of a block see the two keys of this thread: for the first those at positions
// [begin, end) from its own first column on, for the second those 8 further. `keys` of the two
// exist.
struct Viewers {
  int begin, end, keys;
};

template <class Config>
INGOT_FN Viewers viewers_of(const ScoreParams& score, int key_first, int query_first) {
  const int key = key_first + row_in_tile();
  const int missing = static_cast<int>(score.seqlen_k) - key;
  const int position = key - query_first - 2 * (threadIdx.x % 4);
  return {position - static_cast<int>(score.band_right),
          position - static_cast<int>(score.band_left) + 1,
          missing > 8   ? 2
          : missing > 0 ? 1
                        : 0};
}

// Does every query of the block see every key? Queries past the end have no weight.
template <class Config>
INGOT_FN bool is_full_pair(const ScoreParams& score, int key_first, int query_first) {
  bool full = key_first + 64 <= static_cast<int>(score.seqlen_k);
  if (Config::masked) {
    full = full && key_first >= query_first + 63 + static_cast<int>(score.band_left) &&
           key_first + 63 <= query_first + static_cast<int>(score.band_right);
  }
  return full;
}

template <class Config>
INGOT_FN bool is_seen(const Viewers& viewers, int i) {
  const int h = i / 2 % 2, position = i / 4 * 8 + i % 2 - 8 * h;
  bool seen = h < viewers.keys;
  if (Config::masked) seen = seen && position >= viewers.begin && position < viewers.end;
  return seen;
}

// What invisible pairs became, from whatever (0 * Inf of padding) they were.
template <class Config>
INGOT_FN void clear_hidden(float (&x)[32], const Viewers& viewers) {
#pragma unroll
  for (int i = 0; i < 32; ++i) x[i] = is_seen<Config>(viewers, i) ? x[i] : 0.0f;
}

// Whether a query of the heads that this block goes through has a large row.
template <class Config>
INGOT_FN bool any_is_large(const StoredParams& params, const KeyTile& tile) {
  const Index rows = static_cast<Index>(params.group) * params.stored.rows_padded;
  const Index head_kv = static_cast<Index>(tile.batch) * params.num_heads_kv + tile.head_kv;
  return any_is_large<Config::head_dim_v>(params.delta, params.delta - params.lse_log2,
                                          head_kv * rows, rows);
}

// Factors of scores, made once.
struct PairFactors {
  float scale, scale_log2;
  float inner, cap, cap_log2;  // softcap only
};

template <class Config>
INGOT_FN PairFactors make_pair_factors(const ScoreParams& score) {
  const ScoreFactors factors = make_score_factors(score);
  return {factors.scale, factors.scale_log2, factors.inner, score.softcap, factors.cap_log2};
}

// What weights are made of, of the 64 queries of a stage.
struct StageRows {
  u32 lse;                 // where they lie
  const float* log2_sums;  // of this thread's; null but for large rows
};
template <bool Large, class Config>
INGOT_FN StageRows rows_of(const KeysSteps<Config>& steps, typename KeysSteps<Config>::Stage at) {
  return {steps.lse(at), Large ? steps.log2_sums(at) : nullptr};
}

// s becomes P.
template <bool Large>
INGOT_FN void make_weights(float (&s)[32], const StageRows& rows, const PairFactors& f) {
  const u32 from = rows.lse + threadIdx.x % 4 * 8;
#pragma unroll
  for (int g = 0; g < 8; ++g) {
    float stored[2], log2_sum[2];
    load_shared(from + g * 32, stored);
    load_log2_sums<Large>(rows.log2_sums + g * 8, log2_sum);
#pragma unroll
    for (int i = 4 * g; i < 4 * g + 4; ++i) {
      s[i] = weight_of<Large>(s[i], f.scale_log2, f.scale, stored[i % 2], log2_sum[i % 2]);
    }
  }
}

// The same with softcap: s becomes P times the derivative of the score, p becomes P.
template <class Config, bool Edge, bool Large>
INGOT_FN void make_capped_weights(float (&s)[32], u32 (&p)[16], const StageRows& rows,
                                  const PairFactors& f, const Viewers& viewers) {
  const u32 from = rows.lse + threadIdx.x % 4 * 8;
#pragma unroll
  for (int g = 0; g < 8; ++g) {
    float stored[2], log2_sum[2], weight[4];
    load_shared(from + g * 32, stored);
    load_log2_sums<Large>(rows.log2_sums + g * 8, log2_sum);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = 4 * g + j;
      const float t = tanh_fast(s[i] * f.inner);
      weight[j] = weight_of<Large>(t, f.cap_log2, f.cap, stored[j % 2], log2_sum[j % 2]);
      if (Edge) weight[j] = is_seen<Config>(viewers, i) ? weight[j] : 0.0f;
      s[i] = weight[j] * (1.0f - t * t);
    }
    p[2 * g] = pack<typename Config::element>(weight[0], weight[1]);
    p[2 * g + 1] = pack<typename Config::element>(weight[2], weight[3]);
  }
}

template <class T>
INGOT_FN void pack_pairs(const float (&s)[32], u32 (&p)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) p[i] = pack<T>(s[2 * i], s[2 * i + 1]);
}

// dp becomes dS = s * (dP - delta), s being P times the derivative.
INGOT_FN void make_ds(const float (&s)[32], float (&dp)[32], u32 delta) {
  const u32 from = delta + threadIdx.x % 4 * 8;
#pragma unroll
  for (int g = 0; g < 8; ++g) {
    float offset[2];
    load_shared(from + g * 32, offset);
#pragma unroll
    for (int i = 4 * g; i < 4 * g + 4; ++i) dp[i] = s[i] * (dp[i] - offset[i % 2]);
  }
}

// 64 x 64 numbers of 16 bits to a swizzled tile.
INGOT_FN void put_tile(u32 to, const u32 (&x)[16]) {
  const int thread = threadIdx.x % 128, lane = thread % 32;
  const u32 row = to + (thread / 32 * 16 + lane % 16) * 128;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    store_matrix(row + (((2 * i + lane / 16) ^ (lane % 8)) << 4), x + 4 * i);
  }
}

// 64 rows of a tile, columns 16 * Steps, as A operands in registers: products with them read half
// as much shared memory.
template <int Steps>
INGOT_FN void load_operands(u32 (&a)[4 * Steps], u32 tile, int panel) {
  const int thread = threadIdx.x % 128, lane = thread % 32;
  const u32 row = tile + (thread / 32 * 16 + lane % 16) * 128;
#pragma unroll
  for (int i = 0; i < Steps; ++i) {
    load_matrix(a + 4 * i, row + i / 4 * panel + (((i % 4 * 2 + lane / 16) ^ (lane % 8)) << 4));
  }
}

// 64 x 64 products of Dim columns: rows of `a`, whose panels lie `a_panel` bytes apart, with 64
// rows of `b`.
template <class T, int Dim>
INGOT_FN void multiply_pairs(float (&s)[32], u64 a, int a_panel, u64 b) {
  forget(s);
#pragma unroll
  for (int i = 0; i < Dim / 16; ++i) {
    const int a_bytes = i / 4 * a_panel + i % 4 * 32, b_bytes = i / 4 * 64 * 128 + i % 4 * 32;
    Wgmma<T, 64>::template ss<0, 0>(s, a + a_bytes / 16, b + b_bytes / 16, i > 0);
  }
}

// The same, the first columns of `a` in registers.
template <class T, int Dim, int Steps>
INGOT_FN void multiply_pairs(float (&s)[32], const u32 (&first)[4 * Steps], u64 a, int a_panel,
                             u64 b) {
  forget(s);
#pragma unroll
  for (int i = 0; i < Dim / 16; ++i) {
    const int a_bytes = i / 4 * a_panel + i % 4 * 32, b_bytes = i / 4 * 64 * 128 + i % 4 * 32;
    if (i < Steps) {
      Wgmma<T, 64>::template rs<0>(s, first + 4 * i, b + b_bytes / 16, i > 0);
    } else {
      Wgmma<T, 64>::template ss<0, 0>(s, a + a_bytes / 16, b + b_bytes / 16, i > 0);
    }
  }
}

// sums (64 x Dim) += x (64 x 64) times 64 rows at b.
template <class T, int Dim>
INGOT_FN void add_product(float (&sums)[Dim / 2], const u32 (&x)[16], u64 b) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    Wgmma<T, Dim>::template rs<1>(sums, x + 4 * i, b + i * 16 * 128 / 16, 1);
  }
}

// Sums of 64 keys to a tensor, times `factor`.
template <class Output, int Dim, int Count>
INGOT_FN void store_sums(void* to, const Index (&stride)[4], int vector, const ScoreParams& score,
                         const KeyTile& tile, int key_first, const float (&sums)[Count],
                         float factor) {
  if (to == nullptr) return;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const Index key = key_first + row_in_tile() + 8 * h;
    Output* row = static_cast<Output*>(to) + tile.batch * stride[0] + tile.head_kv * stride[1] +
                  key * stride[2];
    store_columns<Dim>(row, stride[3], vector, key < score.seqlen_k, sums, h, factor);
  }
}

}  // namespace ingot
