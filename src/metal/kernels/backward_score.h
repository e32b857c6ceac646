// From the scores of a step to P and dS, element by element.
#pragma once
#include "metal/kernels/backward_product.h"

namespace ingot {

/// What exp2 subtracts: lse in the base-2 domain, and +inf for a row that sees no key, so that its
/// P is 0.
inline float shift_of(float lse) {
  return lse == -INFINITY ? INFINITY : lse * 1.44269504088896340736f;
}

/// Turns s = <q, k> into P and the factor of dP - delta in dS. A pair that is not there has weight
/// 0 in both, whatever its lse: P itself is masked, not only what it multiplies.
struct Pair {
  float p, slope;
};
template <class Config>
inline Pair pair_of(ScoreFactors factors, float s, float shift, bool seen) {
  const float value = value_log2<Config>(factors, s);
  const float p = seen ? exp2_(value - shift) : 0.0f;
  // Without softcap the derivative is `scale` everywhere; the result is multiplied by it at last.
  if constexpr (Config::softcap) return Pair{p, p * derivative<Config>(factors, value)};
  return Pair{p, p};
}

template <class Config>
inline float last_factor(ScoreFactors factors) {
  if constexpr (Config::softcap) return 1.0f;
  return factors.scale;
}

/// dS of one pair; `slope` as pair_of gave it. seen: as above, so that Inf in dP does not spread.
inline float score_gradient(float slope, float dp, float delta, bool seen) {
  return seen ? slope * (dp - delta) : 0.0f;
}

}  // namespace ingot
