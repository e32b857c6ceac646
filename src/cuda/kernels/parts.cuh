// Where the fragments of a warp meet the parts of attention (variants/variant.h). Kernels know no
// single part: they call what stands here, which is empty if Config turns nothing on.
#pragma once

#include "cuda/kernels/tile.cuh"  // with the dialect, first

#include "algorithm/scaled_softmax.h"
#include "variants/variant.h"

namespace ingot {

template <class Config>
using Parts = Variant<Config, const PartParams&>;

template <class Config>
INGOT_FN Parts<Config> parts_of(const PartViews& views) {
  return {views.params,
          {static_cast<const float*>(views.alibi_slopes),
           static_cast<const typename Config::bias_type*>(views.bias),
           static_cast<const unsigned char*>(views.mask),
           static_cast<const typename Config::sinks_type*>(views.sinks),
           static_cast<const int*>(views.prefix_len), static_cast<const u32*>(views.dropout_state)}};
}

// The queries of a warp: row r of its fragments is query (first + r) / group of head
// `head` + (first + r) % group. Without Config::packed, group is 1.
struct WarpQueries {
  Index batch, head, first;
  unsigned group;

  INGOT_FN Index query(int r) const {
    return group == 1 ? first + r : static_cast<unsigned>(first + r) / group;
  }
  INGOT_FN Index head_of(int r) const {
    return group == 1 ? head : head + static_cast<unsigned>(first + r) % group;
  }
};

// A place that can be read: what lies behind the last row or col is hidden whatever is read for it.
template <class I>
INGOT_FN I inside(I i, I count) {
  return i < count ? i : count - 1;
}

// Adds to scores in natural units, and hides what the mask does not show. Cols of the fragment
// begin at `col`.
template <class Config, int M, int N>
INGOT_FN void add_parts(Fragment<M, N>& s, const Parts<Config>& parts, const WarpQueries& rows,
                        const ScoreParams& p, Index col) {
  using S = Fragment<M, N>;
  if constexpr (Config::alibi || Config::bias || Config::mask) {
    const int count = static_cast<int>(clamp_index(p.seqlen_k - col, 1, N));
#pragma unroll
    for (int i = 0; i < S::rows; ++i) {
      const RowParts<Config> row = parts.row(rows.batch, rows.head_of(S::row(i)),
                                             inside(rows.query(S::row(i)), p.seqlen_q))
                                       .from(col);
#pragma unroll
      for (int j = 0; j < S::cols; ++j) {
        const int c = inside(S::col(j), count);
        const float value = row.add(s.x[i][j], c);
        s.x[i][j] = row.shows(c) ? value : -infinity;
      }
    }
  }
}

// What a row's softmax begins with. first: of the pieces of its keys, which it counts in once.
template <class Config>
INGOT_FN ScaledSoftmax<float> first_softmax(const Parts<Config>& parts, Index head, bool first) {
  ScaledSoftmax<float> softmax{-infinity, 0.0f};
  if constexpr (Config::sinks) {
    if (first) {
      softmax.row_max = parts.sink(head);
      softmax.row_sum = lane() % 4 == 0 && softmax.row_max != -infinity ? 1.0f : 0.0f;
    }
  }
  return softmax;
}

// Rows in which some key weighs something, a bit for each of a lane: if a mask hides pairs, sums of
// the others may be 0 times the Inf or NaN of what only other rows of their tiles see.
template <class Config>
struct RowsOfWeight {
  u32 bits;

  INGOT_FN void start() {
    if constexpr (Config::mask) bits = 0;
  }
  // Of row i, some of its weights or their sum.
  INGOT_FN void note(int i, float weight) {
    if constexpr (Config::mask) bits |= (weight == 0.0f ? 0u : 1u) << i;
  }
  template <int M, int N, int Run>
  INGOT_FN void clear_others(Fragment<M, N, Run>& x) const {
    if constexpr (Config::mask) {
      u32 all = bits | __shfl_xor_sync(0xFFFFFFFFu, bits, 1);
      all |= __shfl_xor_sync(0xFFFFFFFFu, all, 2);
#pragma unroll
      for (int i = 0; i < M / 8; ++i) {
        if ((all >> i & 1) != 0) continue;
#pragma unroll
        for (int j = 0; j < N / 4; ++j) x.x[i][j] = 0.0f;
      }
    }
  }
};

// Which weights of a fragment dropout leaves: a bit for each.
template <class Config, int M, int N>
struct Kept {
  static constexpr int rows = M / 8, cols = N / 4;
  u32 bits[rows];
  float factor;
  static_assert(cols <= 32 && N % 16 == 0 && M % 16 == 0, "whole squares of variants/dropout.h");

  // Times what is left of it.
  INGOT_FN void apply(Fragment<M, N>& x) const {
    if constexpr (Config::dropout) {
#pragma unroll
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int j = 0; j < cols; ++j) x.x[i][j] *= (bits[i] >> j & 1) != 0 ? factor : 0.0f;
      }
    }
  }

  INGOT_FN void clear(const DropoutParams& p) {
    factor = p.factor;
#pragma unroll
    for (int i = 0; i < rows; ++i) bits[i] = 0;
  }
  INGOT_FN void note(int i, int j, unsigned number, const DropoutParams& p) {
    bits[i] |= (number < p.threshold ? 0u : 1u) << j;
  }
};

// heads: of q, of a batch entry.
INGOT_FN u32 dropout_head(Index batch, Index heads, Index head) {
  return static_cast<u32>(batch * heads + head);
}

// Rows of the fragment are queries. `col` is a multiple of 16, the first row too unless packed.
template <class Config, int M, int N>
INGOT_FN Kept<Config, M, N> kept_of_queries(const Parts<Config>& parts, const WarpQueries& rows,
                                            Index heads, Index col) {
  using S = Fragment<M, N>;
  Kept<Config, M, N> kept;
  if constexpr (Config::dropout) {
    const DropoutParams p = parts.dropout();
    kept.clear(p);
#pragma unroll
    for (int j = 0; j < S::cols; j += 4) {
      DropoutNumbers<u32> numbers;
#pragma unroll
      for (int i = 0; i < S::rows; ++i) {
        const Index query = rows.query(S::row(i));
        if (Config::packed || i % 2 == 0) {
          numbers = dropout_numbers(
              p, dropout_row(query), dropout_col(col + S::col(j)),
              dropout_head(rows.batch, heads, rows.head_of(S::row(i))));
        }
        const bool low_rows = Config::packed ? query / 8 % 2 == 0 : i % 2 == 0;
        const u32 near = low_rows ? numbers.word[0] : numbers.word[2];
        const u32 far = low_rows ? numbers.word[1] : numbers.word[3];
        kept.note(i, j, near & 0xFFFFu, p), kept.note(i, j + 1, near >> 16, p);
        kept.note(i, j + 2, far & 0xFFFFu, p), kept.note(i, j + 3, far >> 16, p);
      }
    }
  }
  return kept;
}

// Rows of the fragment are keys from `key` on, cols are queries of one head from `query` on; both
// are multiples of 16.
template <class Config, int M, int N>
INGOT_FN Kept<Config, M, N> kept_of_keys(const Parts<Config>& parts, Index key, Index query,
                                         u32 head) {
  using S = Fragment<M, N>;
  Kept<Config, M, N> kept;
  if constexpr (Config::dropout) {
    const DropoutParams p = parts.dropout();
    kept.clear(p);
#pragma unroll
    for (int i = 0; i < S::rows; i += 2) {
      const Index k = key + S::row(i);
#pragma unroll
      for (int j = 0; j < S::cols; ++j) {
        if (j % 4 >= 2) continue;  // cols j + 2 are 8 further
        const DropoutNumbers<u32> numbers =
            dropout_numbers(p, dropout_row(query + S::col(j)), dropout_col(k), head);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const u32 number = k % 2 == 0 ? numbers.word[n] & 0xFFFFu : numbers.word[n] >> 16;
          kept.note(i + n % 2, j + n / 2 * 2, number, p);
        }
      }
    }
  }
  return kept;
}

}  // namespace ingot
