// Rows with large scores in the backward pass of GPUs.
//
// P is exp(value - lse), and an lse of f32 is off by |lse| * 2^-24: at 8e4 that is 5 in 1,000 of P,
// from 1e9 on the logarithm of the row's sum is rounded away altogether, and each of n keys with an
// equal score has P = 1 instead of 1 / n. So rows of large |lse| get that sum anew, by a plain loop
// over their keys, and
//
//   P = exp(min(value - heaviest, 0)) / sum      heaviest = lse - log(sum), rounded
//
// lse came of the ROUNDED product of the heaviest key and the factor, and `heaviest` is that
// product again: its neighbours in f32 are further away than all roundings, or else so near that
// they make no difference. Of the loop only the sum is used, never its largest value: its products
// may differ in the last bits from those of the matrix units, while keys that tie, tie in both. If
// lse is that of more keys than the call has, the sum goes out of P again.
#ifndef INGOT_LARGE_ROWS_H
#define INGOT_LARGE_ROWS_H

#include "algorithm/params.h"

namespace INGOT_NAMESPACE {

// Here f32 costs an lse 2^-12 of P, less than the rounding of the scores themselves.
INGOT_FN float large_lse() { return 4096.0f; }

// A row without weight (-inf), or with an Inf or NaN in it, is none.
INGOT_FN bool is_large_lse(float lse) {
  const float largest = 3.4028234663852886e38f, magnitude = lse < 0.0f ? -lse : lse;
  return magnitude >= large_lse() && magnitude <= largest;
}

// The weights of some keys of a row.
struct RowSum {
  float max;  // the largest value; -inf: none yet
  float sum;  // of exp(value - max)

  INGOT_FN static float weight(float value, float max) {
    const float log2_e = 1.44269504088896340736f;
    return exp2_((value - max) * log2_e);
  }
  INGOT_FN void add(RowSum other) {
    const float higher = max_(max, other.max), offset = finite_or_(higher, 0.0f);
    sum = sum * weight(max, offset) + other.sum * weight(other.max, offset);
    max = higher;
  }
  INGOT_FN void add(float value) { add(RowSum{value, 1.0f}); }

  // 0 for what is no sum: then lse counts as it is.
  INGOT_FN float log2() const { return sum >= 1.0f ? log2_(sum) : 0.0f; }
};

// What the values of a row are less in the exponent of P, before log2 of the sum is.
INGOT_FN float heaviest_of(float lse, float log2_sum) {
  const float ln_2 = 0.69314718055994530942f;
  return lse - ln_2 * log2_sum;
}

}  // namespace INGOT_NAMESPACE
#endif
