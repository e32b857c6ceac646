// Places in the grid, statistics and ranges of rows for backward_dq.cuh and backward_dkv.cuh.
#pragma once

#include "cuda/kernels/backward.cuh"

namespace ingot {

struct BackwardUnit {
  Index batch, head, tile;
  int slice;
};

INGOT_FN BackwardUnit backward_unit(const MmaBackwardParams& p, Index heads, bool last_first) {
  const unsigned tiles = static_cast<unsigned>(p.tiles), slices = p.column_slices;
  const unsigned tile = blockIdx.x % tiles, rest = blockIdx.x / tiles;
  const unsigned head = rest / slices;
  return {head / static_cast<unsigned>(heads), head % static_cast<unsigned>(heads),
          last_first ? tiles - 1 - tile : tile, static_cast<int>(rest % slices)};
}

// Of a query; of none where there is no such row.
INGOT_FN RowStatistics statistics_of(const MmaBackwardParams& p, Index batch, Index head,
                                     Index row) {
  if (row >= p.score.seqlen_q) return {infinity, 0.0f, 0.0f};
  return p.statistics[(batch * p.heads + head) * p.score.seqlen_q + row];
}

struct Range {
  int begin, end;
  INGOT_FN bool holds(int i) const { return i >= begin && i < end; }
};

// Of `count` cols from `first` on: those that a row sees. And rows that see a col.
template <class Band>
INGOT_FN Range cols_of(const Band& p, Index row, Index first, int count) {
  return {static_cast<int>(clamp_index(col_begin(p, row) - first, 0, count)),
          static_cast<int>(clamp_index(col_end(p, row) - first, 0, count))};
}
template <class Band>
INGOT_FN Range rows_of(const Band& p, Index col, Index first, int count) {
  return {static_cast<int>(clamp_index(row_begin(p, col) - first, 0, count)),
          static_cast<int>(clamp_index(row_end(p, col) - first, 0, count))};
}

// Rows [row, row + M) of queries and cols [col, col + N) of keys of one head: products become P and
// gradients as `differentiate` says. statistics: of those rows.
template <class Config, bool to_bias = false, class S>
INGOT_FN void differentiate_queries(S& s, S& ds, const MmaBackwardParams& p,
                                    const Parts<Config>& parts,
                                    const typename BandOf<Config>::type& band,
                                    const FragmentQueries& rows, Index col,
                                    const ScoreFactors& factors, const RowStatistics* statistics) {
  constexpr int M = 8 * S::rows, N = 4 * S::cols;
  const bool full = sees_all<Config>(band, p.score.seqlen_k, rows.first, M, col, N);
  const int count = static_cast<int>(clamp_index(p.score.seqlen_k - col, 1, N));
  kept_of_queries<Config, S>(parts, rows, p.heads, col).apply(ds);
#pragma unroll
  for (int i = 0; i < S::rows; ++i) {
    const Index row = rows.first + S::row(i);
    const Range seen = full ? Range{0, N} : cols_of(band, row, col, N);
    const RowStatistics r = statistics[S::row(i)];
    const RowParts<Config> of_row =
        parts.row(rows.batch, rows.head, inside(row, p.score.seqlen_q)).from(col);
#pragma unroll
    for (int j = 0; j < S::cols; ++j) {
      differentiate<Config, to_bias>(p.score, factors, s.x[i][j], ds.x[i][j], seen.holds(S::col(j)),
                                     r, of_row, inside(S::col(j), count));
    }
  }
}

}  // namespace ingot
