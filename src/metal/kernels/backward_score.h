// From the scores of a step to P and dS, element by element.
#pragma once
#include "metal/kernels/backward_product.h"
#include "metal/kernels/pairs.h"

namespace ingot {

/// What delta.metal found of a query row, and of a row that does not exist.
struct RowTerms {
  float shift;     // what values are less: lse, or `heaviest` of algorithm/large_rows.h
  float log2_sum;  // what exponents are less then; 0 but in large rows
};
constexpr constant RowTerms no_terms{INFINITY, 0.0f};

/// Of the rows of one head.
template <class Config>
struct HeadTerms {
  const device float* deltas;
  Index row_step, plane_step;
  HeadParts<Config> parts;

  float delta(Index row) const { return deltas[row * row_step]; }
  RowTerms of(Index row) const {
    const device float* at = deltas + row * row_step;
    return RowTerms{at[plane_step], at[2 * plane_step]};
  }
};
template <class Config>
inline HeadTerms<Config> terms_of(constant BackwardParams& p, const device float* delta,
                                  CallParts<Config> parts, Index b, Index h) {
  return HeadTerms<Config>{delta + b * p.delta.batch + h * p.delta.head,
                           p.delta.row,
                           p.delta.col,
                           {parts, b, h, p.num_heads}};
}

/// The exponent of P in base 2. The score's product is rounded first: what it is less came of
/// the rounded score of the heaviest key, so that this key has its weight however large its score.
/// No weight is above that; a NaN stays one.
inline float exponent_of(float score, RowTerms row) {
  const float x = score - row.shift;
  return metal::fma(x > 0.0f ? 0.0f : x, log2_e, -row.log2_sum);
}

/// Turns s = <q, k> into P and the factor of dP - delta in dS. A pair that is not there has weight
/// 0 in both, whatever its lse: P itself is masked, not only what it multiplies.
struct Pair {
  float p, slope;
};
template <class Config>
inline Pair pair_of(ScoreParams score, ScoreFactors factors, float s, RowTerms row, bool seen,
                    RowParts<Config> parts, Index col) {
  const float t = Config::softcap ? tanh_(s * factors.inner) : s;
  const float value = natural_score<Config>(t, outer_score<Config>(score, factors), parts, col);
  const float p = seen ? exp2_(exponent_of(value, row)) : 0.0f;
  // Without softcap the derivative is `scale` everywhere; the result is multiplied by it at last.
  if constexpr (Config::softcap) return Pair{p, p * (1.0f - t * t) * factors.scale};
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
