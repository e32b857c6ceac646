// The loop of attention for one team of warps: scores of a block of keys, online softmax, product
// with the values. forward_mma.cuh splits query rows over the warps of a team, decode.cuh keys over
// teams of one warp.
#pragma once

#include "cuda/kernels/pairs.cuh"
#include "cuda/kernels/product.cuh"

namespace ingot {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr int max_of(int a, int b) { return a > b ? a : b; }

// Sizes of the shared tiles. head_dim is gone through in chunks of Config::chunk cols, this block's
// Config::columns cols of the values in chunks of Config::chunk_v.
template <class Config>
struct ForwardShape {
  using T = typename Config::element;
  static constexpr int chunks = ceil_div(Config::head_dim, Config::chunk);
  static constexpr int chunks_v = Config::columns / Config::chunk_v;
  static constexpr int items = chunks + chunks_v;
  static constexpr int unrolled = chunks <= 2 ? chunks : 1;
  using QTile = SharedTile<T, Config::block_m, Config::chunk>;
  using KTile = SharedTile<T, Config::block_n, Config::chunk>;
  using VTile = SharedTile<T, Config::block_n, Config::chunk_v>;
  // Q stays in shared memory where Config::resident, else comes along with every tile of K.
  static constexpr int q_elements = Config::resident ? chunks * QTile::elements : 0;
  static constexpr int k_elements = KTile::elements + (Config::resident ? 0 : QTile::elements);
  static constexpr int slot_elements = max_of(k_elements, VTile::elements);
};

template <class Config>
using Queries = Matrix<const typename Config::q_type, Config::packed>;

// What a ring loads: chunk after chunk of K, then of V, for blocks first, first + step, ... of
// keys.
template <class Config, class Team>
struct KeyValueTiles {
  using Shape = ForwardShape<Config>;
  using T = typename Shape::T;
  Queries<Config> q;
  Matrix<const typename Config::k_type> k;
  Matrix<const typename Config::v_type> v;
  Index row;         // of the first query
  Index first;       // block of keys
  int step, column;  // first column of v

  INGOT_FN Index col(int block) const {
    return (first + static_cast<Index>(block) * step) * Config::block_n;
  }
  INGOT_FN void load(int block, int item, T* slot) const {
    if (item < Shape::chunks) {
      const int from = item * Config::chunk;
      load_tile<Team, Config::block_n, Config::chunk>(slot, k, col(block), from);
      if constexpr (!Config::resident) {
        T* after = slot + Shape::KTile::elements;
        load_tile<Team, Config::block_m, Config::chunk>(after, q, row, from);
      }
    } else {
      const int from = column + (item - Shape::chunks) * Config::chunk_v;
      load_tile<Team, Config::block_n, Config::chunk_v>(slot, v, col(block), from);
    }
  }
};

// Rows of one warp: their running softmax and the part of o made of what they have seen.
template <class Config, int M>
struct WarpRows {
  using S = Fragment<M, Config::block_n>;
  using O = typename Accumulator<typename Config::element, M, Config::columns>::type;
  O o;
  ScaledSoftmax<float> softmax[M / 8];  // row_sum of this lane's cols only
  RowsOfWeight<Config> weighed;

  // first: of the pieces of these rows' keys.
  INGOT_FN void start(const Parts<Config>& parts, const FragmentQueries& rows, bool first) {
    o.clear();
    weighed.start();
#pragma unroll
    for (int i = 0; i < M / 8; ++i) {
      softmax[i] = first_softmax<Config>(parts, rows.head_of(S::row(i)), first);
    }
  }

  // Scores without their last factor to weights, in place.
  INGOT_FN void weigh(S& s, float factor_log2) {
#pragma unroll
    for (int i = 0; i < S::rows; ++i) {
      float tile_max = s.x[i][0];
#pragma unroll
      for (int j = 1; j < S::cols; ++j) tile_max = max_(tile_max, s.x[i][j]);
      const float correction = softmax[i].raise_max(max_of_quad(tile_max), factor_log2);
      float offset = softmax[i].offset() * factor_log2;
      if (fabsf(offset) >= large_exponent()) {
#pragma unroll
        for (int j = 0; j < S::cols; ++j) s.x[i][j] -= softmax[i].offset();
        offset = 0.0f;
      }
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < S::cols; ++j) {
        s.x[i][j] = exp2_(__fmaf_rn(s.x[i][j], factor_log2, -offset));
        sum += s.x[i][j];
      }
      weighed.note(i, sum);
      softmax[i].row_sum += sum;
#pragma unroll
      for (int j = 0; j < O::cols; ++j) o.x[i][j] *= correction;
    }
  }

  // Whole sums, in every lane of a quad.
  INGOT_FN void finish() {
#pragma unroll
    for (int i = 0; i < M / 8; ++i) softmax[i].row_sum = sum_of_quad(softmax[i].row_sum);
    weighed.clear_others(o);
  }
};

// Products of q and k to scores that lack `outer_factor`.
template <class Config, int M, int N>
INGOT_FN void make_scores(Fragment<M, N>& s, const ScoreParams& p, const ScoreFactors& factors) {
  using S = Fragment<M, N>;
  if (!adds_to_scores<Config>() && !Config::softcap && p.scale > 0.0f) return;
#pragma unroll
  for (int i = 0; i < S::rows; ++i) {
#pragma unroll
    for (int j = 0; j < S::cols; ++j) {
      if constexpr (adds_to_scores<Config>()) {
        const float t = Config::softcap ? tanh_(s.x[i][j] * factors.inner) : s.x[i][j];
        s.x[i][j] = rounded_product_(t, Config::softcap ? p.softcap : p.scale);
      } else {
        s.x[i][j] = Config::softcap ? tanh_(s.x[i][j] * factors.inner) : -s.x[i][j];
      }
    }
  }
}

// Hides what a row must not see: cols [col, col + N) against the visible range of every row.
// Row i of the warp is query (first + row(i)) / group.
template <class Band, int M, int N>
INGOT_FN void hide(Fragment<M, N>& s, const Band& p, Index first, unsigned group, Index col) {
  using S = Fragment<M, N>;
#pragma unroll
  for (int i = 0; i < S::rows; ++i) {
    const Index row =
        group == 1 ? first + S::row(i) : static_cast<unsigned>(first + S::row(i)) / group;
    const int begin = static_cast<int>(clamp_index(col_begin(p, row) - col, 0, N));
    const int end = static_cast<int>(clamp_index(col_end(p, row) - col, 0, N));
#pragma unroll
    for (int j = 0; j < S::cols; ++j) {
      if (S::col(j) < begin || S::col(j) >= end) s.x[i][j] = -infinity;
    }
  }
}

// Do queries [row, row + rows) see all of cols [col, col + cols), but for what a mask hides?
template <class Config, class Band>
INGOT_FN bool sees_all(const Band& band, Index seqlen_k, Index row, int rows, Index col, int cols) {
  if (col + cols > seqlen_k) return false;
  return !Config::masked || is_full(band, row, row + rows - 1, col, col + cols - 1);
}

// What the keys of a block weigh: products of q and k become weights, of which `rows` has taken in
// the sums.
template <class Config, class Rows>
INGOT_FN void weigh(Rows& rows, typename Rows::S& s, const MmaForwardParams& p,
                    const Parts<Config>& parts, const typename BandOf<Config>::type& band,
                    const FragmentQueries& queries, const ScoreFactors& factors, float factor_log2,
                    Index col) {
  constexpr int M = 8 * Rows::S::rows;
  make_scores<Config>(s, p.score, factors);
  add_parts<Config>(s, parts, queries, p.score, col, Config::block_n);
  if (!sees_all<Config>(band, p.score.seqlen_k, queries.query(0), M, col, Config::block_n)) {
    hide(s, band, queries.first, queries.group, col);
  }
  rows.weigh(s, factor_log2);
  const Index heads = p.heads * (Config::packed ? p.group : 1);
  kept_of_queries<Config, typename Rows::S>(parts, queries, heads, col).apply(s);
}

// Attends to `blocks` blocks of keys. q: the resident tiles of Q; q_offset: where this warp's rows
// start in a tile of Q.
template <class Config, class Team, int M>
INGOT_FN void attend(WarpRows<Config, M>& rows, const KeyValueTiles<Config, Team>& tiles,
                     int blocks, const typename Config::element* q, int q_offset,
                     typename Config::element* slots, const MmaForwardParams& p,
                     const typename BandOf<Config>::type& band, const FragmentQueries& queries) {
  using Shape = ForwardShape<Config>;
  using T = typename Shape::T;
  const Parts<Config> parts = parts_of<Config>(p.parts);
  const ScoreFactors factors = make_score_factors(p.score);
  const float factor_log2 = outer_factor<Config>(p.score) * log2_e;
  TileRing<Team, T, Shape::slot_elements, Config::stages, Shape::items, KeyValueTiles<Config, Team>>
      ring(slots, tiles, blocks);
  for (int block = 0; block < blocks; ++block) {
    typename WarpRows<Config, M>::S s;
    s.clear();
#pragma unroll(Shape::unrolled)
    for (int c = 0; c < Shape::chunks; ++c) {
      const T* k = ring.next(block, c);
      const T* q_tile =
          Config::resident ? q + c * Shape::QTile::elements : k + Shape::KTile::elements;
      multiply_transposed<Config::chunk>(s, q_tile + q_offset, Shape::QTile::pitch, k,
                                         Shape::KTile::pitch);
    }
    weigh<Config>(rows, s, p, parts, band, queries, factors, factor_log2, tiles.col(block));
#pragma unroll
    for (int c = 0; c < Shape::chunks_v; ++c) {
      const T* v = ring.next(block, Shape::chunks + c);
      multiply<Config::chunk_v>(rows.o, c * Config::chunk_v, s, v, Shape::VTile::pitch);
    }
  }
  rows.finish();
}

}  // namespace ingot
