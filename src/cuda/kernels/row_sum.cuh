// The sum of the weights of a large row (algorithm/large_rows.h), by a plain loop over its keys:
// slow, but such rows are rare. Included by the kernels that make delta.
#pragma once

#include "cuda/kernels/dialect.h"  // before algorithm/

#include "algorithm/large_rows.h"
#include "algorithm/score.h"
#include "cuda/kernels/element.cuh"  // before variant.h
#include "cuda/kernels/mma_params.h"

#include "variants/variant.h"

namespace ingot {

struct HeadRow {
  Index batch, head, row;
  template <class T>
  INGOT_FN const T* of(const MatrixView& m) const {
    return static_cast<const T*>(m.data) + batch * m.stride[0] + head * m.stride[1] +
           row * m.stride[2];
  }
};

template <class T>
INGOT_FN void load_8(const T* from, float (&x)[8]) {
  constexpr int per_load = 16 / sizeof(T);
  uint4 loaded[8 / per_load];
#pragma unroll
  for (int i = 0; i < 8 / per_load; ++i) loaded[i] = reinterpret_cast<const uint4*>(from)[i];
  const T* elements = reinterpret_cast<const T*>(loaded);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = to_float(elements[i]);
}

// A part of the product of two rows of Dim columns: every `Lanes`-th 8, or every `Lanes`-th column,
// from the `lane`-th on. vector: both may be read 16 bytes at a time.
template <int Dim, int Lanes, class A, class B>
INGOT_FN float part_of_product(const A* a, Index a_step, const B* b, Index b_step, bool vector,
                               int lane) {
  float sum = 0.0f;
  if (Dim % 8 == 0 && vector) {
#pragma unroll
    for (int c = 8 * lane; c < Dim; c += 8 * Lanes) {
      float x[8], y[8];
      load_8(a + c, x);
      load_8(b + c, y);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += x[i] * y[i];
    }
  } else {
    for (int c = lane; c < Dim; c += Lanes)
      sum += to_float(a[c * a_step]) * to_float(b[c * b_step]);
  }
  return sum;
}

// The weights of every Lanes-th key of a query from the lane-th on. Tanh as in the kernels that
// make the weights.
template <class Config, int Lanes, class Band, class Tanh>
INGOT_FN RowSum part_of_row_sum(const MatrixView& q, const MatrixView& k, const ScoreParams& score,
                                const Band& band, const RowParts<Config>& parts,
                                const HeadRow& query, Index head_kv, int lane, Tanh tanh) {
  const ScoreFactors factors = make_score_factors(score);
  const float factor = Config::softcap ? score.softcap : factors.scale;
  const auto* const a = query.of<typename Config::q_type>(q);
  const bool vector = q.vector != 0 && k.vector != 0;
  RowSum sum{-infinity, 0.0f};
  const Index end = col_end(band, query.row);
  for (Index col = col_begin(band, query.row) + lane; col < end; col += Lanes) {
    if (!parts.shows(col)) continue;
    const auto* const b = HeadRow{query.batch, head_kv, col}.of<typename Config::k_type>(k);
    const float s = part_of_product<Config::head_dim, 1>(a, q.stride[3], b, k.stride[3], vector, 0);
    const float t = Config::softcap ? tanh(s * factors.inner) : s;
    sum.add(parts.add(rounded_product_(t, factor), col));
  }
  return sum;
}

// Over Lanes lanes of a warp; called by all of it.
template <int Lanes>
INGOT_FN RowSum sum_of_lanes(RowSum sum) {
#pragma unroll
  for (int d = Lanes / 2; d > 0; d /= 2) {
    const float max = __shfl_xor_sync(~0u, sum.max, d);
    sum.add(RowSum{max, __shfl_xor_sync(~0u, sum.sum, d)});
  }
  return sum;
}

// lse of a large row, or the own one if they differ by no more than the two kinds of tanh do:
// scores of 16-bit types take the short one in kernels of Hopper, so that a forward pass elsewhere
// gives another largest value.
template <class Config>
INGOT_FN float settled_lse(float lse, const RowSum& sum, const ScoreParams& score) {
  if (!Config::softcap || sizeof(typename Config::q_type) != 2) return lse;
  const float own = sum.max + sum.log2() * ln_2;
  return fabsf(own - lse) <= score.softcap / 1024.0f ? own : lse;
}

}  // namespace ingot
