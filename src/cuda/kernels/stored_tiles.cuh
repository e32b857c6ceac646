// Which tiles of the stored matrices exist.
#pragma once

#include "algorithm/score.h"
#include "cuda/kernels/dialect.h"
#include "cuda/kernels/stored_params.h"

namespace ingot {

// Is there a visible pair in the tile of 64 queries from `row` and 64 keys from `col`? Writers
// store these tiles whole; readers take the others for zeros.
INGOT_FN bool is_stored(const ScoreParams& score, int row, int col) {
  const int row_last = min(row + stored_tile, static_cast<int>(score.seqlen_q)) - 1;
  const int col_last = min(col + stored_tile, static_cast<int>(score.seqlen_k)) - 1;
  return row <= row_last && col <= col_last &&
         col <= row_last + static_cast<int>(score.band_right) &&
         col_last >= row + static_cast<int>(score.band_left);
}

}  // namespace ingot
