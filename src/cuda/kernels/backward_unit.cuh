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
INGOT_FN Range cols_of(const ScoreParams& p, Index row, Index first, int count) {
  return {static_cast<int>(clamp_index(col_begin(p, row) - first, 0, count)),
          static_cast<int>(clamp_index(col_end(p, row) - first, 0, count))};
}
INGOT_FN Range rows_of(const ScoreParams& p, Index col, Index first, int count) {
  return {static_cast<int>(clamp_index(row_begin(p, col) - first, 0, count)),
          static_cast<int>(clamp_index(row_end(p, col) - first, 0, count))};
}

}  // namespace ingot
