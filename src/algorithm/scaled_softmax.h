// Online softmax over scores that lack their last factor: they are kept as they came out of the
// products, and the factor is applied in the exponent, where a multiply-add has it for nothing.
#ifndef INGOT_SCALED_SOFTMAX_H
#define INGOT_SCALED_SOFTMAX_H

#include "algorithm/params.h"

namespace INGOT_NAMESPACE {

// Something is added to scores behind their factor, or weighed beside them: kernels then keep them
// in natural units.
template <class Config>
INGOT_FN constexpr bool adds_to_scores() {
  return Config::alibi || Config::bias || Config::sinks;
}

// The factor. It is positive: if `scale` is negative the products change their sign instead. Scores
// that something is added to are kept with it.
template <class Config>
INGOT_FN float outer_factor(ScoreParams p) {
  if constexpr (adds_to_scores<Config>()) {
    return 1.0f;
  } else if constexpr (Config::softcap) {
    return p.softcap;
  } else {
    return p.scale < 0.0f ? -p.scale : p.scale;
  }
}

// The running maximum and sum of a row (see online_softmax.h). factor_log2 is the factor times
// log2(e).
template <class F>
struct ScaledSoftmax {
  F row_max;  // of the scores so far, without the factor; -inf: none
  F row_sum;  // of exp2(factor_log2 * (score - row_max))

  // Takes the maximum of the next tile. Returns what O and row_sum so far are to be multiplied by.
  INGOT_FN F raise_max(F tile_max, F factor_log2) {
    const F higher = max_(row_max, tile_max);
    const F correction = exp2_((row_max - finite_or_(higher, F(0.0f))) * factor_log2);
    row_max = higher;
    row_sum = row_sum * correction;
    return correction;
  }

  // What scores are less in the exponent: finite even if no key was visible.
  INGOT_FN F offset() const { return finite_or_(row_max, F(0.0f)); }
};

// exp2(factor * s - factor * max) in one multiply-add takes a ROUNDED factor * max off a product
// that is not rounded: the weight of the largest score is 2 to the power of that rounding error.
// All weights of a row share it and it goes out in their quotient, unless it overflows (from 2^31
// on) or the maximum changes in between. From this exponent on kernels subtract the maximum first.
// Below it the error is at most 2^-12 of a weight, less than the rounding of the score itself.
INGOT_FN float large_exponent() { return 4096.0f; }

}  // namespace INGOT_NAMESPACE
#endif
