// One step of the forward pass, for one simdgroup: S = Q K^T, the online softmax, O += P V.
#pragma once
#include "metal/kernels/copy.h"
#include "metal/kernels/pairs.h"

namespace ingot {

/// Q: in registers for the whole kernel, or read again for every block of keys.
template <class Config, class X, bool cached>
struct Queries {
  static constexpr constant int row_tiles = Config::rows_per_simdgroup / 8;
  static constexpr constant int head_tiles = tiles_of(Config::head_dim);
  using R = typename Config::qk_reg;
  using Source = X;

  X x;
  Extent extent;  // rows from `first` on
  Lane lane;
  int first;
  Tile<R> held[cached ? row_tiles * head_tiles : 1];

  template <int width, bool col_edge>
  void read(thread Tile<R>* tiles, int step, int tile) {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      load_rows<width, true, col_edge>(tiles + i * step, x, lane, first + 8 * i, 8 * tile,
                                       Extent{first + extent.rows, extent.cols});
    }
  }
  /// A step of for_panels: fills `held`.
  template <int width, bool col_edge>
  void run(int tile) {
    read<width, col_edge>(held + tile, head_tiles, tile);
  }
  void start() {
    if constexpr (cached) for_panels<Config::head_dim, Config::panel, false>(*this);
  }

  template <int width, bool col_edge>
  void panel(thread Tile<R>* tiles, int tile) {
    if constexpr (cached) {
      INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
        INGOT_UNROLL for (int j = 0; j < width; ++j) {
          tiles[i * width + j] = held[i * head_tiles + tile + j];
        }
      }
    } else {
      read<width, col_edge>(tiles, width, tile);
    }
  }
};

/// S += Q K^T over the panels of a slab of K; a step of for_panels.
template <class Config, int key_tiles, bool key_edge, bool padded, class Q, class K>
struct ScoreStep {
  static constexpr constant int row_tiles = Config::rows_per_simdgroup / 8;
  using R = typename Config::qk_reg;

  thread Tile<float>* S;  // [row_tiles][key_tiles]
  thread Q* queries;
  K k;
  int first_tile;  // of the slab within head_dim
  Extent extent;

  template <int width, bool col_edge>
  void run(int t) {
    const Lane lane = queries->lane;
    Tile<R> Qt[row_tiles * width];
    queries->template panel<width, col_edge>(Qt, first_tile + t);
    INGOT_UNROLL for (int c = 0; c < key_tiles; ++c) {
      Tile<R> Kt[width];
      load_transposed<width, key_edge, col_edge && !padded>(Kt, k, lane, 8 * c, 8 * t, extent);
      INGOT_UNROLL for (int j = 0; j < width; ++j) {
        INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
          multiply_add(S[i * key_tiles + c], Qt[i * width + j], Kt[j]);
        }
      }
    }
  }
};

/// Does a panel go beyond the columns that are there?
enum class Columns { all_there, known, run_time };

/// O += P V over the panels of a slab of V; a step of for_panels. Columns of V: those of for_panels
/// (known), padded with zeros (all_there), or fewer, extent.cols (run_time).
template <class Config, int key_tiles, int value_tiles, bool key_edge, Columns columns, class V>
struct ValueStep {
  static constexpr constant int row_tiles = Config::rows_per_simdgroup / 8;
  using R = typename Config::pv_reg;

  thread Tile<float>* O;  // [row_tiles][value_tiles]
  thread Tile<R>* P;
  V v;
  Lane lane;
  int first_tile;  // of the slab within O
  Extent extent;

  template <int width, bool col_edge>
  void run(int t) {
    INGOT_UNROLL for (int c = 0; c < key_tiles; ++c) {
      Tile<R> Vt[width];
      if (columns == Columns::run_time && 8 * (t + width) > extent.cols) {
        load_rows<width, key_edge, true>(Vt, v, lane, 8 * c, 8 * t, extent);
      } else {
        load_rows<width, key_edge, col_edge && columns == Columns::known>(Vt, v, lane, 8 * c, 8 * t,
                                                                          extent);
      }
      INGOT_UNROLL for (int j = 0; j < width; ++j) {
        INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
          multiply_add(O[i * value_tiles + first_tile + t + j], P[i * key_tiles + c], Vt[j]);
        }
      }
    }
  }
};

/// The softmax of row_tiles * 8 rows so far. row_sum holds the thread's own share of a row.
template <int row_tiles>
struct RowState {
  ScaledSoftmax<float> row[row_tiles];

  /// owner: among those who share the rows' keys, the one who counts their sinks.
  template <class Config, bool packed>
  void start(Pairs<Config, packed> pairs, Lane lane, bool is_first_split, bool owner) {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      row[i] = ScaledSoftmax<float>{minus_infinity(), 0};
      if constexpr (Config::sinks) {
        if (!is_first_split) continue;
        row[i].row_max = pairs.head_of(8 * i + lane.row).sink();
        const bool counts = owner && lane.col == 0 && row[i].row_max != minus_infinity();
        row[i].row_sum = counts ? 1.0f : 0.0f;
      }
    }
  }

  /// Of row tile i of S.
  template <int key_tiles>
  static float highest(thread Tile<float>* S, int i) {
    float x = minus_infinity();
    INGOT_UNROLL for (int c = 0; c < key_tiles; ++c) {
      thread Tile<float>& s = S[i * key_tiles + c];
      x = max_(x, max_(s.thread_elements()[0], s.thread_elements()[1]));
    }
    return row_max(x);
  }

  /// P = exp2(factor_log2 * (S - max)), where `highest` is the maximum of the row. Returns what O
  /// so far is to be multiplied by.
  template <int key_tiles, class R, class AnyPairs>
  float update(thread Tile<float>* S, thread Tile<R>* P, int i, float highest, float factor_log2,
               AnyPairs pairs, KeyBlock block, Lane lane) {
    const float correction = row[i].raise_max(highest, factor_log2);
    float offset = row[i].offset() * factor_log2;
    if (metal::abs(offset) >= large_exponent()) {
      INGOT_UNROLL for (int c = 0; c < key_tiles; ++c) {
        INGOT_UNROLL for (int e = 0; e < 2; ++e) {
          S[i * key_tiles + c].thread_elements()[e] -= row[i].offset();
        }
      }
      offset = 0.0f;
    }
    INGOT_UNROLL for (int c = 0; c < key_tiles; ++c) {
      float p[2];
      INGOT_UNROLL for (int e = 0; e < 2; ++e) {
        const float s = S[i * key_tiles + c].thread_elements()[e];
        p[e] = exp2_(metal::fma(s, factor_log2, -offset));
        row[i].row_sum += p[e];
      }
      pairs.drop(p, 8 * i + lane.row, block.col + 8 * c + lane.col);
      INGOT_UNROLL for (int e = 0; e < 2; ++e) {
        P[i * key_tiles + c].thread_elements()[e] = R(p[e]);
      }
    }
    return correction;
  }

  /// Sums of whole rows; the end.
  void finish() {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) row[i].row_sum = row_sum(row[i].row_sum);
  }
  /// What O is multiplied by at last: a row without a key gives 0.
  float factor(int i) const { return row[i].row_sum == 0.0f ? 0.0f : 1.0f / row[i].row_sum; }
};

/// lse, of which the rows from the first of the simdgroup on are given. factor: outer_factor.
template <int row_tiles, class X>
inline void store_lse(RowState<row_tiles> state, X lse, Lane lane, int rows, float factor) {
  INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
    const int row = 8 * i + lane.row;
    const float x = lse_of(state.row[i].row_max, state.row[i].row_sum, factor);
    if (lane.col == 0 && row < rows) *lse.at(row, 0) = x;
  }
}

/// The maximum and the sum of weights of every row of one split, as two columns. Not their lse:
/// beyond some 10^4 that would round the sum away.
template <int row_tiles, class X>
inline void store_sums(RowState<row_tiles> state, X sums, Lane lane, int rows) {
  INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
    const int row = 8 * i + lane.row;
    if (lane.col != 0 || row >= rows) continue;
    *sums.at(row, 0) = state.row[i].row_max;
    *sums.at(row, 1) = state.row[i].row_sum;
  }
}

/// O = correction * O, unless no row of the simdgroup has a new maximum.
template <int row_tiles, int value_tiles>
inline void rescale(thread Tile<float>* O, const thread float* correction) {
  bool changed = false;
  INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) changed = changed || correction[i] != 1.0f;
  if (!metal::simd_any(changed)) return;
  INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
    INGOT_UNROLL for (int t = 0; t < value_tiles; ++t) {
      O[i * value_tiles + t].thread_elements()[0] *= correction[i];
      O[i * value_tiles + t].thread_elements()[1] *= correction[i];
    }
  }
}

/// O times the factor of the weights that dropout leaves.
template <class Config, int tiles>
inline void multiply_kept(thread Tile<float>* O, HeadParts<Config> parts) {
  if constexpr (Config::dropout) {
    INGOT_UNROLL for (int t = 0; t < tiles; ++t) {
      O[t].thread_elements()[0] *= parts.kept_factor();
      O[t].thread_elements()[1] *= parts.kept_factor();
    }
  }
}

/// Rows that a mask shows nothing to have no part of what other rows of their tiles see, were it
/// NaN.
template <class Config, int row_tiles, int value_tiles>
inline void clear_unseen(thread Tile<float>* O, RowState<row_tiles> state) {
  if constexpr (Config::mask) {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      if (state.row[i].row_sum != 0.0f) continue;
      INGOT_UNROLL for (int t = 0; t < value_tiles; ++t) set_zero(O[i * value_tiles + t]);
    }
  }
}

/// Stores O / row_sum; a step of for_panels.
template <int row_tiles, int value_tiles, Columns columns, class X>
struct OutputStep {
  const thread Tile<float>* O;
  thread RowState<row_tiles>* state;
  X o;
  Lane lane;
  Extent extent;

  template <int width, bool col_edge>
  void run(int t) {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const thread Tile<float>* tiles = O + i * value_tiles + t;
      if (columns == Columns::run_time && 8 * (t + width) > extent.cols) {
        store_rows<width, true>(tiles, o, lane, 8 * i, 8 * t, state->factor(i), extent);
      } else {
        store_rows<width, col_edge>(tiles, o, lane, 8 * i, 8 * t, state->factor(i), extent);
      }
    }
  }
};

}  // namespace ingot
