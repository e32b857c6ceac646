// Where fragments of the score matrix meet the parts of attention (variants/variant.h). Kernels
// know no single part: they call what stands here, which is empty if Config turns nothing on.
//
// A fragment F holds `rows` by `cols` numbers of a thread, at(i, j) at row(i) and col(j) of its
// tile. Rows 2 i and 2 i + 1 are 8 apart, as are cols 4 j + n and 4 j + 2 + n; cols 2 j and 2 j + 1
// are neighbours, and lanes 4 i .. 4 i + 3 share rows: the accumulators of mma.sync and of wgmma.
#pragma once

#include "cuda/kernels/element.cuh"  // with the dialect, before variants/

#include "algorithm/scaled_softmax.h"
#include "cuda/kernels/part_views.h"
#include "variants/variant.h"

namespace ingot {

template <class Config>
using Parts = Variant<Config, const PartParams&>;

template <class Config>
INGOT_FN Parts<Config> parts_of(const PartViews& views) {
  return {
      views.params,
      {static_cast<const float*>(views.alibi_slopes),
       static_cast<const typename Config::bias_type*>(views.bias),
       static_cast<const unsigned char*>(views.mask),
       static_cast<const typename Config::sinks_type*>(views.sinks),
       static_cast<const int*>(views.prefix_len), static_cast<const u32*>(views.dropout_state)}};
}

// The queries of a fragment: its row r is query `base` + (first + r) / group of head
// `head` + (first + r) % group. Without Config::packed, group is 1.
struct FragmentQueries {
  Index batch, head, base, first;
  unsigned group;

  INGOT_FN Index query(int r) const {
    return group == 1 ? base + first + r : base + static_cast<unsigned>(first + r) / group;
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

// Adds to scores in natural units, and hides what the mask does not show. Col 0 of the fragment's
// tile is `col`, of which there are `cols`.
template <class Config, class F>
INGOT_FN void add_parts(F&& s, const Parts<Config>& parts, const FragmentQueries& rows,
                        const ScoreParams& p, Index col, int cols) {
  using S = Plain<F>;
  if constexpr (Config::alibi || Config::bias || Config::mask) {
    const int count = static_cast<int>(clamp_index(p.seqlen_k - col, 1, cols));
#pragma unroll
    for (int i = 0; i < S::rows; ++i) {
      const RowParts<Config> row =
          parts.row(rows.batch, rows.head_of(S::row(i)), inside(rows.query(S::row(i)), p.seqlen_q))
              .from(col);
#pragma unroll
      for (int j = 0; j < S::cols; ++j) {
        const int c = inside(S::col(j), count);
        const float value = row.add(s.at(i, j), c);
        s.at(i, j) = row.shows(c) ? value : -infinity;
      }
    }
  }
}

// What a row's softmax begins with, on one of the lanes that share it. first: of the pieces of its
// keys, which the sink is counted in with once.
template <class Config>
INGOT_FN ScaledSoftmax<float> first_softmax(const Parts<Config>& parts, Index head, bool first) {
  ScaledSoftmax<float> softmax{-infinity, 0.0f};
  if constexpr (Config::sinks) {
    if (first) {
      softmax.row_max = parts.sink(head);
      softmax.row_sum = threadIdx.x % 4 == 0 && softmax.row_max != -infinity ? 1.0f : 0.0f;
    }
  }
  return softmax;
}

// Rows in which some key weighs something, a bit for each of a thread: if a mask hides pairs, sums
// of the others may be 0 times the Inf or NaN of what only other rows of their tiles see.
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
  template <class F>
  INGOT_FN void clear_others(F&& x) const {
    if constexpr (Config::mask) {
      u32 all = bits | __shfl_xor_sync(0xFFFFFFFFu, bits, 1);
      all |= __shfl_xor_sync(0xFFFFFFFFu, all, 2);
#pragma unroll
      for (int i = 0; i < Plain<F>::rows; ++i) {
        if ((all >> i & 1) != 0) continue;
#pragma unroll
        for (int j = 0; j < Plain<F>::cols; ++j) x.at(i, j) = 0.0f;
      }
    }
  }
};

// Which weights of a fragment dropout leaves: a bit for each. Without dropout nothing.
template <class Config, class S, bool dropout = Config::dropout>
struct Kept {
  template <class F>
  INGOT_FN void apply(F&&) const {}
};
template <class Config, class S>
struct Kept<Config, S, true> {
  static constexpr int rows = S::rows, cols = S::cols, words = (cols + 31) / 32;
  u32 bits[rows][words];
  float factor;
  static_assert(cols % 4 == 0 && rows % 2 == 0, "whole squares of variants/dropout.h");

  // Times what is left of it.
  template <class F>
  INGOT_FN void apply(F&& x) const {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) {
        x.at(i, j) *= (bits[i][j / 32] >> j % 32 & 1) != 0 ? factor : 0.0f;
      }
    }
  }

  INGOT_FN void clear(const DropoutParams& p) {
    factor = p.factor;
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int w = 0; w < words; ++w) bits[i][w] = 0;
    }
  }
  INGOT_FN void note(int i, int j, unsigned number, const DropoutParams& p) {
    bits[i][j / 32] |= (number < p.threshold ? 0u : 1u) << j % 32;
  }
};

// heads: of q, of a batch entry.
INGOT_FN u32 dropout_head(Index batch, Index heads, Index head) {
  return static_cast<u32>(batch * heads + head);
}

// Rows of the fragment are queries. `col` is a multiple of 16, the tile's first row too unless
// packed.
template <class Config, class S>
INGOT_FN Kept<Config, S> kept_of_queries(const Parts<Config>& parts, const FragmentQueries& rows,
                                         Index heads, Index col) {
  Kept<Config, S> kept;
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
          numbers = dropout_numbers(p, dropout_row(query), dropout_col(col + S::col(j)),
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
template <class Config, class S>
INGOT_FN Kept<Config, S> kept_of_keys(const Parts<Config>& parts, Index key, Index query,
                                      u32 head) {
  Kept<Config, S> kept;
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
