// Online softmax on wgmma accumulators: a thread holds two rows (h = 0, 1) of a tile, a quarter of
// the columns each; lanes 4 i .. 4 i + 3 share rows. The arithmetic is that of
// algorithm/scaled_softmax.h.
#pragma once

#include "algorithm/scaled_softmax.h"
#include "algorithm/score.h"
#include "cuda/kernels/dialect.h"

namespace ingot {

struct Rows {
  float max[2] = {-infinity, -infinity};  // of raw scores, or at most `headroom` less
  float sum[2] = {0.0f, 0.0f};            // this thread's columns only, until the end
  // The factor of scores in the exponent, positive. Of a row from huge_exponent on it is the power
  // of two above: products with it are exact, so that the largest weight is 1 whatever the score.
  float scale[2];

  INGOT_FN explicit Rows(float scale_log2) : scale{scale_log2, scale_log2} {}
};

// 2^27. Scores that differ are 8 apart there, so that the larger factor makes weights of 1 / 256
// smaller, where the rounding of a score is a factor of 16. Below, the largest weight is off by 2^4
// with the rounding of what it is taken against, which f16 holds.
constexpr float huge_exponent = 134217728.0f;

// What weights are taken against: exp2(scale * s - offset) is one multiply-add, which rounds once.
INGOT_FN float offset_of(float max, float scale) { return __fmul_rn(finite_or_(max, 0.0f), scale); }

// Which columns of a tile the two rows of this thread see: positions in [begin, end), counted from
// the thread's own first column.
struct Visible {
  int begin[2], end[2];
};

template <bool Banded, int Count>
INGOT_FN void hide(float (&s)[Count], const Visible& visible) {
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const int position = i / 4 * 8 + i % 2, h = i / 2 % 2;
    const bool seen = position < visible.end[h] && (!Banded || position >= visible.begin[h]);
    s[i] = seen ? s[i] : -infinity;
  }
}

INGOT_FN float max_of_quad(float x) {
  x = max_(x, __shfl_xor_sync(~0u, x, 1));
  return max_(x, __shfl_xor_sync(~0u, x, 2));
}
INGOT_FN float sum_of_quad(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// Largest exponent of 2 that a weight may reach before the reference of its row is raised.
constexpr float headroom = 8.0f;

// The rare part of raise_max: factors of rows that are huge, or no longer. `less`: the exponents of
// what O is multiplied by.
INGOT_FN void raise_huge(const bool (&raise)[2], float scale, Rows& rows, float (&less)[2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const bool was_huge = rows.scale[h] != scale;
    const bool is_huge = !(fabsf(offset_of(rows.max[h], scale)) < huge_exponent);
    // Scores that differ are so far apart that nothing is left of what came before.
    if (was_huge || is_huge) less[h] = raise[h] ? -infinity : 0.0f;
    rows.scale[h] =
        is_huge ? __uint_as_float((__float_as_uint(scale) + 0x7FFFFFu) & 0x7F800000u) : scale;
  }
}

// Takes in the maxima of a tile. A row's reference stays while it is at most 2^headroom too small,
// so that O is almost never multiplied after the first tiles. True where it has to be by
// `correction` in some row of this warp; the sums already are.
template <int Count>
INGOT_FN bool raise_max(const float (&s)[Count], float scale, Rows& rows, float (&correction)[2]) {
  float top[2] = {s[0], s[2]};
#pragma unroll
  for (int i = 0; i < Count; i += 4) {
    top[0] = max_(top[0], max_(s[i], s[i + 1]));
    top[1] = max_(top[1], max_(s[i + 2], s[i + 3]));
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) top[h] = max_of_quad(top[h]);
  const bool raise[2] = {(top[0] - rows.max[0]) * scale > headroom,
                         (top[1] - rows.max[1]) * scale > headroom};
  if (!__any_sync(~0u, raise[0] || raise[1])) return false;
  float less[2];
  bool huge = false;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float before = __fmul_rn(rows.max[h], rows.scale[h]);  // -inf: none
    rows.max[h] = raise[h] ? top[h] : rows.max[h];
    const float now = offset_of(rows.max[h], scale);
    less[h] = before - now;
    huge = huge || rows.scale[h] != scale || !(fabsf(now) < huge_exponent);
  }
  if (__any_sync(~0u, huge)) raise_huge(raise, scale, rows, less);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    correction[h] = exp2_(less[h]);
    rows.sum[h] *= correction[h];
  }
  return true;
}

// Scores become weights, exp2(scale * s - offset).
template <int Count>
INGOT_FN void exponentiate(float (&s)[Count], Rows& rows) {
  const float offset[2] = {-offset_of(rows.max[0], rows.scale[0]),
                           -offset_of(rows.max[1], rows.scale[1])};
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const int h = i / 2 % 2;
    s[i] = exp2_(__fmaf_rn(s[i], rows.scale[h], offset[h]));
    rows.sum[h] += s[i];
  }
}

// Natural logarithm of a row's weights: the product of the largest score and the factor, rounded,
// and the logarithm of the sum. What weights were taken against was rounded in another base.
INGOT_FN float lse_of_row(float max, float scale, float sum, float factor) {
  const float m = finite_or_(max, 0.0f);
  const float rest = __fmaf_rn(m, scale, -offset_of(max, scale));
  return __fmul_rn(m, factor) + (log2f(sum) - rest) * ln_2;
}

template <int Count>
INGOT_FN void clear(float (&o)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) o[i] = 0.0f;
}

template <int Count>
INGOT_FN void add(float (&o)[Count], const float (&part)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) o[i] += part[i];
}

template <int Count>
INGOT_FN void multiply(float (&o)[Count], const float (&by)[2]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) o[i] *= by[i / 2 % 2];
}

// Weights as the A operand of the second product. With Planes > 1 as a sum of terms of T, the
// largest first; what a term leaves out is exact in f32.
template <class T, int Planes, int Count>
INGOT_FN void pack_weights(float (&s)[Count], u32 (&p)[Planes][Count / 2]) {
#pragma unroll
  for (int plane = 0; plane < Planes; ++plane) {
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      p[plane][i] = pack<T>(s[2 * i], s[2 * i + 1]);
      if (plane + 1 < Planes) {
        s[2 * i] -= low_of<T>(p[plane][i]);
        s[2 * i + 1] -= high_of<T>(p[plane][i]);
      }
    }
  }
}

// The factor of scores in the exponent, made positive so that the largest score is the heaviest.
struct Scale {
  float log2;     // of scores after transform()
  float inner;    // softcap only
  bool negative;  // products change their sign
};

template <class Config>
INGOT_FN Scale make_scale(const ScoreParams& score) {
  const ScoreFactors factors = make_score_factors(score);
  if constexpr (adds_to_scores<Config>()) return {log2_e, factors.inner, false};
  return {Config::softcap ? factors.cap_log2 : fabsf(factors.scale_log2), factors.inner,
          factors.scale < 0.0f};
}

// Products of q and k to scores, but for the factor.
template <class Config, int Count>
INGOT_FN void transform(float (&s)[Count], const Scale& scale, const ScoreParams& score) {
  if constexpr (Config::softcap && Config::planes > 1) {
#pragma unroll
    for (int i = 0; i < Count; ++i) s[i] = tanh_(s[i] * scale.inner);
  } else if constexpr (Config::softcap) {
#pragma unroll
    for (int i = 0; i < Count; ++i) s[i] = tanh_fast(s[i] * scale.inner);
  } else if (scale.negative) {
#pragma unroll
    for (int i = 0; i < Count; ++i) s[i] = -s[i];
  }
  if constexpr (adds_to_scores<Config>()) {
    const float factor = Config::softcap ? score.softcap : score.scale;
#pragma unroll
    for (int i = 0; i < Count; ++i) s[i] = rounded_product_(s[i], factor);
  }
}

// An accumulator as a fragment (pairs.cuh); rows count from this thread's first.
template <int Count>
struct AccumulatorFragment {
  static constexpr int rows = 2, cols = Count / 2;
  float (&x)[Count];

  INGOT_FN float& at(int i, int j) const { return x[j / 2 * 4 + i * 2 + j % 2]; }
  INGOT_FN static int row(int i) { return 8 * i; }
  INGOT_FN static int col(int j) {
    return j / 2 * 8 + static_cast<int>(threadIdx.x % 4) * 2 + j % 2;
  }
};

}  // namespace ingot
