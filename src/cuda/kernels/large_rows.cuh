// Rows with large scores in the backward pass on Hopper (algorithm/large_rows.h): how their numbers
// lie, and P of a pair. P of other rows is exp2(s * scale - lse) with lse in the base-2 domain.
#pragma once

#include "cuda/kernels/dialect.h"  // before algorithm/

#include "algorithm/large_rows.h"
#include "cuda/kernels/backward_params.h"

namespace ingot {

// What statistics.cuh stores: lse in base 2; of a large row twice its heaviest_of(), which no other
// row reaches. Infinity: a row without weight.
INGOT_FN float stored_lse(float lse, float log2_sum) {
  if (lse == -infinity) return infinity;
  if (!is_large_lse(lse)) return lse * log2_e;
  constexpr float largest = __builtin_bit_cast(float, 0x7F7FFFFF);
  return fmaxf(-largest, fminf(2.0f * heaviest_of(lse, log2_sum), largest));
}

// 1.75: the logarithm of a sum is at most 22, log2_e less than 1.5.
INGOT_FN bool is_large(float stored) { return fabsf(stored) >= 1.75f * large_lse(); }

// Rows that a block of statistics.cuh takes. Behind delta it leaves a byte for each of its blocks:
// is one of their rows large?
constexpr int statistics_lanes(int head_dim_v) {
  return head_dim_v > 128 ? 32 : head_dim_v > 64 ? 16 : 8;
}
constexpr int statistics_warps = 8;
constexpr int statistics_rows(int head_dim_v) {
  return statistics_warps * 32 / statistics_lanes(head_dim_v);
}

// Whether one of `rows` rows from `first` on is large; both are multiples of 128, `total` is the
// number of all rows. Asked once by every warp that makes weights: a branch between its products
// would cost more than all else.
template <int HeadDimV>
INGOT_FN bool any_is_large(const float* delta, Index total, Index first, Index rows) {
  constexpr int each = 4 * statistics_rows(HeadDimV);  // rows of 4 bytes
  const u32* flags = reinterpret_cast<const u32*>(delta + total) + first / each;
  u32 any = 0;
  for (Index i = threadIdx.x % 32; i < rows / each; i += 32) any |= flags[i];
  return __any_sync(~0u, any != 0);
}

// The sums of two queries that are neighbours, from memory: those of few calls are looked at.
template <bool Large>
INGOT_FN void load_log2_sums(const float* from, float (&x)[2]) {
  if constexpr (Large) {
    const float2 pair = *reinterpret_cast<const float2*>(from);
    x[0] = pair.x, x[1] = pair.y;
  } else {
    x[0] = x[1] = 0.0f;
  }
}

// P of a pair. `s` lacks the factor; Large: the row may be.
template <bool Large>
INGOT_FN float weight_of(float s, float factor_log2, float factor, float stored, float log2_sum) {
  float exponent = __fmaf_rn(s, factor_log2, -stored);
  if constexpr (Large) {
    // Computed for all and then selected: a branch per pair costs more.
    const float less = __fsub_rn(__fmul_rn(s, factor), 0.5f * stored);
    const float large = __fmaf_rn(min_or_nan(less, 0.0f), log2_e, -log2_sum);
    exponent = is_large(stored) ? large : exponent;
  }
  return exp2_(exponent);
}

}  // namespace ingot
