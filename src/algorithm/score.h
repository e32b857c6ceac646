// The variants of attention, each in one place: the value of a score, its derivative, which pairs
// are visible, and the block ranges that follow from it. Everything here is pure; `Config` carries
// the literals `masked` and `softcap`.
//
// Invariants (property tests): [col_begin(row), col_end(row)) holds exactly the visible cols of a
// row, the row range those of a col; derivative() is the derivative of value().
#ifndef INGOT_SCORE_H
#define INGOT_SCORE_H

#include "algorithm/params.h"

namespace INGOT_NAMESPACE {

INGOT_FN Index clamp_index(Index x, Index low, Index high) {
  return x < low ? low : (x > high ? high : x);
}

// causal: 0 none, 1 top_left, 2 bottom_right. Window bounds: -1 unbounded. (ingot.h, ingot_problem)
INGOT_FN ScoreParams make_score_params(float scale, float softcap, Index seqlen_q, Index seqlen_k,
                                       int causal, Index window_left, Index window_right) {
  ScoreParams p;
  p.scale = scale;
  p.softcap = softcap;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  // Position of row 0 among the keys. A band edge beyond either sequence is cut there, so sums
  // cannot overflow.
  const Index shift = causal == 1 ? 0 : seqlen_k - seqlen_q;
  const Index left =
      window_left < 0 || window_left > seqlen_q + seqlen_k ? seqlen_q + seqlen_k : window_left;
  const Index wide =
      window_right < 0 || window_right > seqlen_q + seqlen_k ? seqlen_q + seqlen_k : window_right;
  const Index right = causal != 0 ? 0 : wide;
  p.band_left = shift - left;
  p.band_right = shift + right;
  return p;
}

// Does any pair of the problem fall outside the band? Decides Config::masked.
INGOT_FN bool is_masked(ScoreParams p) {
  return p.band_left > 1 - p.seqlen_q || p.band_right < p.seqlen_k - 1;
}

INGOT_FN bool visible(ScoreParams p, Index row, Index col) {
  return col >= row + p.band_left && col <= row + p.band_right;
}

// Cols that rows [row_first, row_last] see between them: the range of key blocks of a query block.
INGOT_FN Index col_begin(ScoreParams p, Index row_first) {
  return clamp_index(row_first + p.band_left, 0, p.seqlen_k);
}
INGOT_FN Index col_end(ScoreParams p, Index row_last) {
  return clamp_index(row_last + p.band_right + 1, 0, p.seqlen_k);
}

// Rows that see one of cols [col_first, col_last]: the range of query blocks of a key block.
INGOT_FN Index row_begin(ScoreParams p, Index col_first) {
  return clamp_index(col_first - p.band_right, 0, p.seqlen_q);
}
INGOT_FN Index row_end(ScoreParams p, Index col_last) {
  return clamp_index(col_last - p.band_left + 1, 0, p.seqlen_q);
}

// Every row of [row_first, row_last] sees every col of [col_first, col_last]: no test per pair is
// needed.
INGOT_FN bool is_full(ScoreParams p, Index row_first, Index row_last, Index col_first,
                      Index col_last) {
  return visible(p, row_last, col_first) && visible(p, row_first, col_last);
}

// The factors of value() and derivative(), made once per call. value_log2 = value * log2(e), so
// that softmax is exp2.
struct ScoreFactors {
  float scale;       // without softcap: value = scale * s
  float inner;       // with: value = softcap * tanh(inner * s)
  float scale_log2;  // scale * log2(e)
  float cap_log2;    // softcap * log2(e)
};

INGOT_FN ScoreFactors make_score_factors(ScoreParams p) {
  const float log2_e = 1.44269504088896340736f;
  ScoreFactors f;
  f.scale = p.scale;
  f.inner = p.softcap > 0.0f ? p.scale / p.softcap : 0.0f;
  f.scale_log2 = p.scale * log2_e;
  f.cap_log2 = p.softcap * log2_e;
  return f;
}

// Score in the base-2 domain, s = <q, k>. F: float or a vector of floats.
template <class Config, class F>
INGOT_FN F value_log2(ScoreFactors f, F s) {
  if constexpr (Config::softcap) {
    return tanh_(s * f.inner) * f.cap_log2;
  } else {
    return s * f.scale_log2;
  }
}

// d value / d s, from the value in the base-2 domain (backward has it at hand; tanh is not computed
// again).
template <class Config, class F>
INGOT_FN F derivative(ScoreFactors f, F value_log2) {
  if constexpr (Config::softcap) {
    const F t = value_log2 * (1.0f / f.cap_log2);
    return (F(1.0f) - t * t) * f.scale;
  } else {
    return F(f.scale);
  }
}

}  // namespace INGOT_NAMESPACE
#endif
