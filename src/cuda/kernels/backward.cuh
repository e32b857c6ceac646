// What backward_dq.cuh and backward_dkv.cuh have in common. Both keep rows of one side of the score
// matrix (queries, or keys: the stationary side) and go through blocks of the other (moving) side:
//
//   S = A1 B1^T, dP = A2 B2^T    with (A1, A2, B1, B2) = (Q, dO, K, V), or (K, V, Q, dO):
//   transposed P = exp(S - lse)             dS = P (dP - delta) dscore/dS
//
// so that a warp's P and dS are operands of the next products as they lie in registers.
#pragma once

#include "cuda/kernels/attend.cuh"

namespace ingot {

// Sizes of the shared tiles. A block of threads makes Config::columns cols of the sum over B1 (dq
// or dk) and Config::columns_v of the one over B2 (dv; none: 0).
template <class Config>
struct BackwardShape {
  using T = typename Config::element;
  static constexpr int chunks = ceil_div(Config::head_dim, Config::chunk);
  static constexpr int chunks_v = ceil_div(Config::head_dim_v, Config::chunk_v);
  static constexpr int sums = Config::columns / Config::chunk;
  static constexpr int sums_v = Config::columns_v / Config::chunk_v;
  // Where whole rows fit a tile, B1 and B2 come together, once, and serve all products.
  static constexpr bool whole = Config::resident && chunks == 1 && chunks_v == 1 && sums == 1;
  static constexpr int items = whole ? 1 : chunks + chunks_v + sums_v + sums;
  using A1 = SharedTile<T, Config::block_m, Config::chunk>;
  using A2 = SharedTile<T, Config::block_m, Config::chunk_v>;
  using B1 = SharedTile<T, Config::block_n, Config::chunk>;
  using B2 = SharedTile<T, Config::block_n, Config::chunk_v>;
  static constexpr int a1_elements = Config::resident ? chunks * A1::elements : 0;
  static constexpr int a_elements = a1_elements + (Config::resident ? chunks_v * A2::elements : 0);
  static constexpr int b1_slot = B1::elements + (Config::resident ? 0 : A1::elements);
  static constexpr int b2_slot = B2::elements + (Config::resident ? 0 : A2::elements);
  static constexpr int slot_elements = whole ? b1_slot + b2_slot : max_of(b1_slot, b2_slot);
};

// Four matrices of one head, or of the first of a group, and what a ring loads of them: chunks of
// B1 and B2, then those the sums are made of. Block b is the rows after (first + b % blocks) *
// block_n of head b / blocks of the group.
template <class Config, class Team, class A1, class A2, class B1, class B2>
struct BackwardTiles {
  using Shape = BackwardShape<Config>;
  using T = typename Shape::T;
  Matrix<const A1> a1;
  Matrix<const A2> a2;
  Matrix<const B1> b1;
  Matrix<const B2> b2;
  Index row, first;  // of the stationary side; block of the moving side
  int blocks, column, column_v;

  INGOT_FN Index col(int block) const { return (first + block % blocks) * Config::block_n; }

  template <class Element>
  INGOT_FN Matrix<Element> of_head(Matrix<Element> m, int block) const {
    m.data += block / blocks * m.head_stride;
    return m;
  }
  INGOT_FN void load_b1(int block, int from, T* slot) const {
    load_tile<Team, Config::block_n, Config::chunk>(slot, of_head(b1, block), col(block), from);
  }
  INGOT_FN void load_b2(int block, int from, T* slot) const {
    load_tile<Team, Config::block_n, Config::chunk_v>(slot, of_head(b2, block), col(block), from);
  }
  INGOT_FN void load(int block, int item, T* slot) const {
    if constexpr (Shape::whole) {
      load_b1(block, 0, slot);
      load_b2(block, 0, slot + Shape::b1_slot);
      return;
    }
    constexpr int chunks = Shape::chunks, both = chunks + Shape::chunks_v;
    if (item < chunks) {
      load_b1(block, item * Config::chunk, slot);
      if constexpr (!Config::resident) {
        load_tile<Team, Config::block_m, Config::chunk>(slot + Shape::B1::elements, a1, row,
                                                        item * Config::chunk);
      }
    } else if (item < both) {
      const int from = (item - chunks) * Config::chunk_v;
      load_b2(block, from, slot);
      if constexpr (!Config::resident) {
        load_tile<Team, Config::block_m, Config::chunk_v>(slot + Shape::B2::elements, a2, row,
                                                          from);
      }
    } else if (item < both + Shape::sums_v) {
      load_b2(block, column_v + (item - both) * Config::chunk_v, slot);
    } else {
      load_b1(block, column + (item - both - Shape::sums_v) * Config::chunk, slot);
    }
  }
  // A1 and A2, where they stay in shared memory.
  INGOT_FN void load_stationary(T* a) const {
    if constexpr (Config::resident) {
      for (int c = 0; c < Shape::chunks; ++c) {
        load_tile<Team, Config::block_m, Config::chunk>(a + c * Shape::A1::elements, a1, row,
                                                        c * Config::chunk);
      }
      for (int c = 0; c < Shape::chunks_v; ++c) {
        load_tile<Team, Config::block_m, Config::chunk_v>(
            a + Shape::a1_elements + c * Shape::A2::elements, a2, row, c * Config::chunk_v);
      }
    }
  }
};

// S and dP of one block, from its first items. a: A1 and A2 where resident; offset: this warp's
// first row. Returns the first tile.
template <class Config, class S, class Ring>
INGOT_FN const typename Config::element* multiply_block(S& s, S& dp, Ring& ring, int block,
                                                        const typename Config::element* a,
                                                        int offset) {
  using Shape = BackwardShape<Config>;
  using T = typename Config::element;
  constexpr int pitch = Shape::A1::pitch, pitch_v = Shape::A2::pitch;
  const T* const a2 = a + Shape::a1_elements;
  s.clear();
  dp.clear();
  if constexpr (Shape::whole) {
    const T* b = ring.next(block, 0);
    multiply_transposed<Config::chunk>(s, a + offset * pitch, pitch, b, pitch);
    multiply_transposed<Config::chunk_v>(dp, a2 + offset * pitch_v, pitch_v, b + Shape::b1_slot,
                                         pitch_v);
    return b;
  } else {
#pragma unroll 1
    for (int c = 0; c < Shape::chunks; ++c) {
      const T* b = ring.next(block, c);
      const T* tile = Config::resident ? a + c * Shape::A1::elements : b + Shape::B1::elements;
      multiply_transposed<Config::chunk>(s, tile + offset * pitch, pitch, b, pitch);
    }
#pragma unroll 1
    for (int c = 0; c < Shape::chunks_v; ++c) {
      const T* b = ring.next(block, Shape::chunks + c);
      const T* tile = Config::resident ? a2 + c * Shape::A2::elements : b + Shape::B2::elements;
      multiply_transposed<Config::chunk_v>(dp, tile + offset * pitch_v, pitch_v, b, pitch_v);
    }
    return nullptr;
  }
}

// log2 of P. The score is rounded before the shift goes off it: that came of the rounded score of
// the heaviest key, so that this key has its weight however large its score.
INGOT_FN float exponent_of(float score, const RowStatistics& row) {
  const float less = __fsub_rn(score, row.shift);
  return __fmaf_rn(min_or_nan(less, 0.0f), log2_e, -row.log2_sum);
}

// One pair: the score product s becomes P, dp becomes dS without the factor scale, which the sums
// get at their end, or, for dbias, the gradient of the score behind its softcap. Both are 0 where
// the pair is not visible, whatever (0 * Inf of padding) they were. dp has its factor of dropout.
template <class Config, bool to_bias = false>
INGOT_FN void differentiate(const ScoreParams& score, const ScoreFactors& f, float& s, float& dp,
                            bool visible, const RowStatistics& row, const RowParts<Config>& parts,
                            Index col) {
  const float t = Config::softcap ? tanh_(s * f.inner) : s;
  const float value = parts.add(__fmul_rn(t, Config::softcap ? score.softcap : f.scale), col);
  // Computed for all and then selected: a branch per pair costs more.
  const float weight = exp2_(exponent_of(value, row));
  const float slope = Config::softcap && !to_bias ? 1.0f - t * t : 1.0f;
  const float gradient = weight * (dp - row.delta) * slope;
  visible = visible && parts.shows(col);
  s = visible ? weight : 0.0f;
  dp = visible ? gradient : 0.0f;
}

}  // namespace ingot
