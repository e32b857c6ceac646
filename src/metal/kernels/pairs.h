// Where fragments of pairs, a query row and a key each, meet the parts of attention: the score with
// what is added to it, what is visible, what the softmax begins with, which weights dropout takes.
// Kernels know no single part. What Config turns off leaves no code.
#pragma once
#include "metal/kernels/params.h"
#include "metal/kernels/tile.h"

#include "algorithm/scaled_softmax.h"
#include "algorithm/score.h"

namespace ingot {

/// Which of the weights of two neighbouring keys, an even one first, dropout leaves.
struct Kept {
  bool of[2];
};

/// The parts of a call at one head.
template <class Config>
struct HeadParts {
  CallParts<Config> call;
  Index batch, head;
  int num_heads;

  /// The row must exist.
  RowParts<Config> row(Index row) const { return call.variant().row(batch, head, row); }

  float sink() const { return call.variant().sink(head); }

  Kept kept(Index row, Index col) const {
    Kept kept{{true, true}};
    if constexpr (Config::dropout) {
      const DropoutParams p = call.variant().dropout();
      const DropoutNumbers<uint> numbers = dropout_numbers<uint>(
          p, dropout_row(row), dropout_col(col), uint(batch * num_heads + head));
      INGOT_UNROLL for (int e = 0; e < 2; ++e) {
        kept.of[e] = dropout_keep(p, dropout_number(numbers, row, col + e)) != 0.0f;
      }
    }
    return kept;
  }
  bool keeps(Index row, Index col) const { return kept(row, col - col % 2).of[col % 2]; }

  /// dP of a pair.
  float weighed(float dp, bool kept) const {
    if constexpr (Config::dropout) return kept ? kept_factor() * dp : 0.0f;
    return dp;
  }

  /// Of the weights that dropout leaves: results are multiplied by it at last, so that weights of
  /// 16 bits do not overflow.
  float kept_factor() const {
    if constexpr (Config::dropout) return call.params->dropout.factor;
    return 1.0f;
  }
};

template <class Config>
inline float outer_score(ScoreParams score, ScoreFactors factors) {
  return Config::softcap ? score.softcap : factors.scale;
}

/// t: <q, k>, with softcap the tanh. The score in natural units, its factor rounded for itself.
template <class Config>
inline float natural_score(float t, float factor, RowParts<Config> parts, Index col) {
  return parts.add(rounded_product_(t, factor), col);
}

// ---- the forward pass: a simdgroup's rows of queries, tiles of keys ----

/// Keys from `col` on; `cols` of them are there, perhaps more than the block has.
struct KeyBlock {
  Index col;
  int cols;
};

/// Where the query rows of a simdgroup stand. packed: the rows of all heads that share keys, one
/// head after the other.
template <bool packed>
struct Positions {
  Index first;
  int head_rows;  // seqlen_q

  Index at(int row) const { return packed ? (first + row) % head_rows : first + row; }
  Index head(int row) const { return packed ? (first + row) / head_rows : 0; }
};

template <class Config, bool packed>
struct Pairs {
  ScoreParams score;
  ScoreFactors factors;
  typename BandOf<Config>::type band;
  Positions<packed> positions;
  int rows;               // that are there, from the first position on
  HeadParts<Config> own;  // packed: of the first head

  /// Rows that are not there count as the last that is.
  int there(int row) const { return smaller(row, larger(rows - 1, 0)); }
  HeadParts<Config> head_of(int row) const {
    HeadParts<Config> parts = own;
    parts.head += positions.head(there(row));
    return parts;
  }
  RowParts<Config> parts_of(int row) const { return head_of(row).row(positions.at(there(row))); }

  /// Dot products to scores that lack `outer_factor`; -inf if a pair is not visible or no key is
  /// there.
  template <int row_tiles, int key_tiles, bool edge>
  void make_scores(thread Tile<float>* S, KeyBlock block, Lane lane) const {
    const bool negative = score.scale < 0.0f;
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const Index row = positions.at(8 * i + lane.row);
      const RowParts<Config> parts = parts_of(8 * i + lane.row);
      INGOT_UNROLL for (int c = 0; c < key_tiles; ++c) {
        INGOT_UNROLL for (int e = 0; e < 2; ++e) {
          const int col = 8 * c + lane.col + e;
          bool seen = true;
          if constexpr (edge) {
            seen = col < block.cols && (!Config::masked || visible(band, row, block.col + col));
          }
          if constexpr (hides_pairs<Config>()) seen = seen && parts.shows(block.col + col);
          float x = S[i * key_tiles + c].thread_elements()[e];
          if constexpr (Config::softcap) {
            x = tanh_(x * factors.inner);
          } else if constexpr (!adds_to_scores<Config>()) {
            x = negative ? -x : x;
          }
          if constexpr (adds_to_scores<Config>()) {
            const float factor = outer_score<Config>(score, factors);
            if (seen) x = natural_score<Config>(x, factor, parts, block.col + col);
          }
          S[i * key_tiles + c].thread_elements()[e] = seen ? x : minus_infinity();
        }
      }
    }
  }

  /// The weights of two neighbouring keys of a row, without those that dropout takes.
  void drop(thread float* weights, int row, Index col) const {
    if constexpr (Config::dropout) {
      const Kept kept = head_of(row).kept(positions.at(row), col);
      INGOT_UNROLL for (int e = 0; e < 2; ++e) weights[e] = kept.of[e] ? weights[e] : 0.0f;
    }
  }
};

}  // namespace ingot
