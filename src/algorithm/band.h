// What a row sees of one sequence, as intervals: the band of score.h (causal, window), and before
// it a prefix of keys that every row sees. Pure.
//
// Invariants (property tests): [col_begin(row), col_end(row)) holds exactly the visible cols of a
// row, the row range those of a col.
#ifndef INGOT_BAND_H
#define INGOT_BAND_H

#include "algorithm/score.h"

namespace INGOT_NAMESPACE {

struct Band {
  ScoreParams p;
  Index prefix;  // keys that every row sees; 0 if the band is bounded on the left

  INGOT_FN bool visible(Index row, Index col) const {
    return col < prefix || INGOT_NAMESPACE::visible(p, row, col);
  }

  // Cols that rows [row_first, row_last] see between them.
  INGOT_FN Index col_begin(Index row_first) const {
    return INGOT_NAMESPACE::col_begin(p, row_first);
  }
  INGOT_FN Index col_end(Index row_last) const {
    const Index end = INGOT_NAMESPACE::col_end(p, row_last);
    return end < prefix ? prefix : end;
  }

  // Rows that see one of cols [col_first, col_last].
  INGOT_FN Index row_begin(Index col_first) const {
    return col_first < prefix ? 0 : INGOT_NAMESPACE::row_begin(p, col_first);
  }
  INGOT_FN Index row_end(Index col_last) const { return INGOT_NAMESPACE::row_end(p, col_last); }

  // Every row of [row_first, row_last] sees every col of [col_first, col_last].
  INGOT_FN bool is_full(Index row_first, Index row_last, Index col_first, Index col_last) const {
    return visible(row_last, col_first) && visible(row_first, col_last);
  }

  INGOT_FN bool is_masked() const { return INGOT_NAMESPACE::is_masked(p) && prefix < p.seqlen_k; }
};

// The names of score.h, so that kernels take either.
INGOT_FN bool visible(Band b, Index row, Index col) { return b.visible(row, col); }
INGOT_FN Index col_begin(Band b, Index row_first) { return b.col_begin(row_first); }
INGOT_FN Index col_end(Band b, Index row_last) { return b.col_end(row_last); }
INGOT_FN Index row_begin(Band b, Index col_first) { return b.row_begin(col_first); }
INGOT_FN Index row_end(Band b, Index col_last) { return b.row_end(col_last); }
INGOT_FN bool is_full(Band b, Index row_first, Index row_last, Index col_first, Index col_last) {
  return b.is_full(row_first, row_last, col_first, col_last);
}

}  // namespace INGOT_NAMESPACE
#endif
