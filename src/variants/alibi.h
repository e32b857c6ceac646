// ALiBi (Press, Smith and Lewis, "Train Short, Test Long", 2022), with flash_attn's rule for
// positions: score -= slope * |col - p|, where p is the row's own position among the keys, the one
// that windows are counted from.
#ifndef INGOT_ALIBI_H
#define INGOT_ALIBI_H

#include "algorithm/params.h"

namespace INGOT_NAMESPACE {

// What every row's position is more than the row. causal: as in make_score_params.
INGOT_FN Index position_shift(int causal, Index seqlen_q, Index seqlen_k) {
  return causal == 1 ? 0 : seqlen_k - seqlen_q;
}

// What the score loses, for `distance` = col - p. F: float or a vector of floats.
template <class F>
INGOT_FN F alibi_penalty(F slope, F distance) {
  return slope * abs_(distance);
}

}  // namespace INGOT_NAMESPACE
#endif
