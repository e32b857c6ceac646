// One tile of the backward pass: query rows in vector lanes, keys downwards. S and dP become P and
// dS, and their products with K, dout and Q are added to the gradients. Included once per
// instruction set.
#if defined(INGOT_CPU_BACKWARD_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_BACKWARD_TILE_INL_H
#undef INGOT_CPU_BACKWARD_TILE_INL_H
#else
#define INGOT_CPU_BACKWARD_TILE_INL_H
#endif

#include "cpu/backward_layout.hpp"
#include "cpu/parts-inl.h"
#include "cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

/// Rows of f32, one per key of the tile.
struct KeyRows {
  const float* data = nullptr;
  Index row = 0;  // floats between rows
};

/// The part of block x keys that this tile computes. Rows and lanes count from the block's first
/// row.
struct BackwardTile {
  Index cols = 0;                      // keys
  Index row_first = 0, row_end = 0;    // rows that see one of the keys at least
  Index lane_first = 0, lane_end = 0;  // those rows in whole vectors
  bool edge = false;   // some pair of the tile is not visible, or lse_low of some row is not 0
  bool parts = false;  // s.parts has been filled
  const float* seen = nullptr;  // s.parts.seen if the mask hides some pairs
  bool dout_finite = true;
  KeyRows k, v;
  float* dk = nullptr;  // sums of the tile's first key; null: not wanted
  float* dv = nullptr;
  float* dscore = nullptr;  // sums of what dbias gets, [cols][ld_m]; null: not wanted
  bool dq = false;

  bool needs_ds() const { return dq || dk != nullptr || dscore != nullptr; }
};

/// The tiles in a worker's scratch.
struct BackwardScratch {
  float *q, *q_t, *dq_t, *dout, *dout_t, *lse, *lse_low, *delta, *seen_first, *seen_end, *ones, *k,
      *v, *p, *ds, *dk, *dv;
  PartTiles parts;
  float* dscore;

  BackwardScratch(const BackwardLayout& l, float* base)
      : q(base + l.q),
        q_t(base + l.q_t),
        dq_t(base + l.dq_t),
        dout(base + l.dout),
        dout_t(base + l.dout_t),
        lse(base + l.lse),
        lse_low(base + l.lse_low),
        delta(base + l.delta),
        seen_first(base + l.seen_first),
        seen_end(base + l.seen_end),
        ones(base + l.ones),
        k(base + l.k),
        v(base + l.v),
        p(base + l.p),
        ds(base + l.ds),
        dk(base + l.dk),
        dv(base + l.dv),
        parts(l.parts, base),
        dscore(l.dscore < 0 ? nullptr : base + l.dscore) {}
};

constexpr Index whole_vectors(Index elements) { return (elements + kLanes - 1) / kLanes * kLanes; }

HWY_INLINE Vec zero_unless(hn::Mask<Vec::Tag> keep, Vec x) {
  return Vec(hn::IfThenElseZero(keep, x.raw));
}

/// What the passes over a tile read and write for key j and the rows of one vector, from row m on.
struct TilePlace {
  Index j, m, at;  // at: in the tiles
};

/// Lanes whose pair is visible.
HWY_INLINE hn::Mask<Vec::Tag> visible_lanes(const BackwardTile& t, const BackwardScratch& s,
                                            const TilePlace& place) {
  const Vec col(static_cast<float>(place.j));
  const auto in_band = hn::And(hn::Ge(col.raw, Vec::load(s.seen_first + place.m).raw),
                               hn::Lt(col.raw, Vec::load(s.seen_end + place.m).raw));
  if (t.seen == nullptr) return in_band;
  const auto hidden = hn::Eq(Vec::load(t.seen + place.at).raw, hn::Zero(Vec::Tag()));
  return hn::AndNot(hidden, in_band);
}

/// P = exp2(value - lse) and dS = P * (dP - delta) * derivative, in place. On an edge, pairs that
/// are not visible become 0, lse is the sum of two numbers, and the result is 0 where the scores
/// were finite, visible or not, else NaN. kParts: the tiles of the parts take part, and what dbias
/// gets is added to t.dscore.
template <class Score, bool kEdge, bool kNeedsDs, bool kParts>
HWY_INLINE Vec weigh(const ScoreFactors& factors, const BackwardTile& t, const BackwardScratch& s,
                     const TilePlace& place) {
  const Index at = place.at, m = place.m;
  const Vec score = Vec::load(s.p + at);
  const Vec value = value_log2<Score>(factors, score);
  Vec whole = value;
  if constexpr (kParts) {
    if (s.parts.added != nullptr) whole = fma_(Vec::load(s.parts.added + at), Vec(kLog2E), value);
  }
  Vec exponent = whole - Vec::load(s.lse + m);
  if constexpr (kEdge) exponent = exponent - Vec::load(s.lse_low + m);
  Vec p = exp2_(exponent);
  Vec dp(0.0F);
  if constexpr (kNeedsDs) dp = Vec::load(s.ds + at);
  Vec kept = p;
  if constexpr (kParts) {
    if (s.parts.kept != nullptr) {
      const Vec factor = Vec::load(s.parts.kept + at);
      kept = p * factor;
      dp = dp * factor;
    }
  }
  Vec dscore(0.0F), ds(0.0F);
  if constexpr (kNeedsDs) {
    dscore = p * (dp - Vec::load(s.delta + m));
    ds = dscore * derivative<Score>(factors, value);
  }
  if constexpr (kEdge) {
    const auto visible = visible_lanes(t, s, place);
    kept = zero_unless(visible, kept);
    dscore = zero_unless(visible, dscore);
    ds = zero_unless(visible, ds);
  }
  kept.store(s.p + at);
  if constexpr (kNeedsDs) ds.store(s.ds + at);
  if constexpr (kParts && kNeedsDs) {
    if (t.dscore != nullptr) (Vec::load(t.dscore + at) + dscore).store(t.dscore + at);
  }
  return score * 0.0F;
}

/// All pairs of the tile. False on an edge where a score is not finite.
template <class Score, bool kEdge, bool kNeedsDs, bool kParts = false>
bool make_weights(const ScoreFactors& factors, const BackwardTile& t, const BackwardScratch& s,
                  Index ld) {
  Vec finite(0.0F);
  for (Index j = 0; j < t.cols; ++j) {
    for (Index m = t.lane_first; m < t.lane_end; m += kLanes) {
      const Vec of_vector =
          weigh<Score, kEdge, kNeedsDs, kParts>(factors, t, s, {j, m, j * ld + m});
      if constexpr (kEdge) finite = finite + of_vector;
    }
  }
  return !any_differs(finite, Vec(0.0F));
}

template <class Score>
bool make_weights(const ScoreFactors& factors, const BackwardTile& t, const BackwardScratch& s,
                  Index ld) {
  if (t.parts) {
    return t.edge ? make_weights<Score, true, true, true>(factors, t, s, ld)
                  : make_weights<Score, false, true, true>(factors, t, s, ld);
  }
  if (t.needs_ds()) {
    return t.edge ? make_weights<Score, true, true>(factors, t, s, ld)
                  : make_weights<Score, false, true>(factors, t, s, ld);
  }
  return t.edge ? make_weights<Score, true, false>(factors, t, s, ld)
                : make_weights<Score, false, false>(factors, t, s, ld);
}

/// S^T = K Q^T and dP^T = V dO^T.
inline void multiply_scores_of_tile(const BackwardLayout& l, const Problem& problem,
                                    const BackwardTile& t, const BackwardScratch& s) {
  const Index lanes = t.lane_end - t.lane_first;
  multiply({.rows = t.cols,
            .cols = lanes,
            .depth = problem.head_dim,
            .a = t.k.data,
            .a_row = t.k.row,
            .a_depth = 1,
            .b = s.q_t + t.lane_first,
            .b_depth = l.ld_m,
            .c = s.p + t.lane_first,
            .c_row = l.ld_m});
  if (!t.needs_ds()) return;
  multiply({.rows = t.cols,
            .cols = lanes,
            .depth = problem.head_dim_v,
            .a = t.v.data,
            .a_row = t.v.row,
            .a_depth = 1,
            .b = s.dout_t + t.lane_first,
            .b_depth = l.ld_m,
            .c = s.ds + t.lane_first,
            .c_row = l.ld_m});
}

/// dQ^T += K^T dS^T, dV += P^T dO, dK += dS^T Q. Sums run over keys and over rows in ascending
/// order.
inline void add_gradients(const BackwardLayout& l, const Problem& problem, const BackwardTile& t,
                          const BackwardScratch& s) {
  const Index rows = t.row_end - t.row_first;
  if (t.dv != nullptr) {
    multiply({.rows = t.cols,
              .cols = whole_vectors(problem.head_dim_v),
              .depth = rows,
              .a = s.p + t.row_first,
              .a_row = l.ld_m,
              .a_depth = 1,
              .b = s.dout + t.row_first * l.ld_v,
              .b_depth = l.ld_v,
              .c = t.dv,
              .c_row = l.ld_v,
              .start = Start::add});
  }
  if (t.dk != nullptr) {
    multiply({.rows = t.cols,
              .cols = whole_vectors(problem.head_dim),
              .depth = rows,
              .a = s.ds + t.row_first,
              .a_row = l.ld_m,
              .a_depth = 1,
              .b = s.q + t.row_first * l.ld_q,
              .b_depth = l.ld_q,
              .c = t.dk,
              .c_row = l.ld_q,
              .start = Start::add});
  }
  if (t.dq) {
    multiply({.rows = problem.head_dim,
              .cols = t.lane_end - t.lane_first,
              .depth = t.cols,
              .a = t.k.data,
              .a_row = 1,
              .a_depth = t.k.row,
              .b = s.ds + t.lane_first,
              .b_depth = l.ld_m,
              .c = s.dq_t + t.lane_first,
              .c_row = l.ld_m,
              .start = Start::add});
  }
}

/// As add_gradients, pair by pair and visible ones alone: where an operand is infinite or NaN, a
/// product with the zero of a pair that is not visible would carry it into rows that never see it.
/// The operands are k and q, whose scores tell, and dout: never what is there only for some
/// outputs.
inline void add_visible_gradients(const BackwardLayout& l, const Problem& problem,
                                  const BackwardTile& t, const BackwardScratch& s) {
  for (Index j = 0; j < t.cols; ++j) {
    for (Index m = t.row_first; m < t.row_end; ++m) {
      const auto col = static_cast<float>(j);
      if (col < s.seen_first[m] || col >= s.seen_end[m]) continue;
      if (t.seen != nullptr && t.seen[j * l.ld_m + m] == 0.0F) continue;
      const float p = s.p[j * l.ld_m + m];
      const float ds = s.ds[j * l.ld_m + m];
      if (t.dv != nullptr) {
        for (Index d = 0; d < problem.head_dim_v; ++d)
          t.dv[j * l.ld_v + d] += p * s.dout[m * l.ld_v + d];
      }
      if (t.dk != nullptr) {
        for (Index d = 0; d < problem.head_dim; ++d)
          t.dk[j * l.ld_q + d] += ds * s.q[m * l.ld_q + d];
      }
      if (t.dq) {
        for (Index d = 0; d < problem.head_dim; ++d)
          s.dq_t[d * l.ld_m + m] += ds * t.k.data[j * t.k.row + d];
      }
    }
  }
}

inline void backward_tile(const BackwardLayout& l, const Problem& problem,
                          const ScoreFactors& factors, const BackwardTile& t,
                          const BackwardScratch& s) {
  multiply_scores_of_tile(l, problem, t, s);
  const bool finite = problem.softcap > 0.0F ? make_weights<CappedScore>(factors, t, s, l.ld_m)
                                             : make_weights<PlainScore>(factors, t, s, l.ld_m);
  if (t.edge && !(finite && t.dout_finite)) {
    add_visible_gradients(l, problem, t, s);
  } else {
    add_gradients(l, problem, t, s);
  }
}

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
