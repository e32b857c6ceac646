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
  bool edge = false;                   // some pair of the tile is not visible
  KeyRows k, v;
  float* dk = nullptr;  // sums of the tile's first key; null: not wanted
  float* dv = nullptr;
  bool dq = false;

  bool needs_ds() const { return dq || dk != nullptr; }
};

/// The tiles in a worker's scratch.
struct BackwardScratch {
  float *q, *q_t, *dq_t, *dout, *dout_t, *lse, *delta, *seen_first, *seen_end, *ones, *k, *v, *p,
      *ds, *dk, *dv;

  BackwardScratch(const BackwardLayout& l, float* base)
      : q(base + l.q),
        q_t(base + l.q_t),
        dq_t(base + l.dq_t),
        dout(base + l.dout),
        dout_t(base + l.dout_t),
        lse(base + l.lse),
        delta(base + l.delta),
        seen_first(base + l.seen_first),
        seen_end(base + l.seen_end),
        ones(base + l.ones),
        k(base + l.k),
        v(base + l.v),
        p(base + l.p),
        ds(base + l.ds),
        dk(base + l.dk),
        dv(base + l.dv) {}
};

constexpr Index whole_vectors(Index elements) { return (elements + kLanes - 1) / kLanes * kLanes; }

HWY_INLINE Vec zero_unless(hn::Mask<Vec::Tag> keep, Vec x) {
  return Vec(hn::IfThenElseZero(keep, x.raw));
}

/// P = exp2(value - lse) and dS = P * (dP - delta) * derivative, in place, for key j and the rows
/// of one vector. On an edge, pairs that are not visible become 0, and the result is 0 where the
/// scores were finite, visible or not, else NaN.
template <class Config, bool kEdge, bool kNeedsDs>
HWY_INLINE Vec weigh(const ScoreFactors& factors, const BackwardScratch& s, Index ld, Index j,
                     Index m) {
  float* const p_at = s.p + j * ld + m;
  float* const ds_at = s.ds + j * ld + m;
  const Vec score = Vec::load(p_at);
  const Vec value = value_log2<Config>(factors, score);
  Vec finite = score * 0.0F;
  Vec p = exp2_(value - Vec::load(s.lse + m));
  Vec ds(0.0F);
  if constexpr (kNeedsDs) {
    const Vec dp = Vec::load(ds_at);
    ds = p * (dp - Vec::load(s.delta + m)) * derivative<Config>(factors, value);
    finite = fma_(dp, Vec(0.0F), finite);
  }
  if constexpr (kEdge) {
    const Vec col(static_cast<float>(j));
    const auto visible_lanes = hn::And(hn::Ge(col.raw, Vec::load(s.seen_first + m).raw),
                                       hn::Lt(col.raw, Vec::load(s.seen_end + m).raw));
    p = zero_unless(visible_lanes, p);
    ds = zero_unless(visible_lanes, ds);
  }
  p.store(p_at);
  if constexpr (kNeedsDs) ds.store(ds_at);
  return finite;
}

/// All pairs of the tile. False on an edge where a score is not finite.
template <class Config, bool kEdge, bool kNeedsDs>
bool make_weights(const ScoreFactors& factors, const BackwardTile& t, const BackwardScratch& s,
                  Index ld) {
  Vec finite(0.0F);
  for (Index j = 0; j < t.cols; ++j) {
    for (Index m = t.lane_first; m < t.lane_end; m += kLanes) {
      const Vec of_vector = weigh<Config, kEdge, kNeedsDs>(factors, s, ld, j, m);
      if constexpr (kEdge) finite = finite + of_vector;
    }
  }
  return !any_differs(finite, Vec(0.0F));
}

template <class Config>
bool make_weights(const ScoreFactors& factors, const BackwardTile& t, const BackwardScratch& s,
                  Index ld) {
  if (t.needs_ds()) {
    return t.edge ? make_weights<Config, true, true>(factors, t, s, ld)
                  : make_weights<Config, false, true>(factors, t, s, ld);
  }
  return t.edge ? make_weights<Config, true, false>(factors, t, s, ld)
                : make_weights<Config, false, false>(factors, t, s, ld);
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
inline void add_visible_gradients(const BackwardLayout& l, const Problem& problem,
                                  const BackwardTile& t, const BackwardScratch& s) {
  for (Index j = 0; j < t.cols; ++j) {
    for (Index m = t.row_first; m < t.row_end; ++m) {
      const auto col = static_cast<float>(j);
      if (col < s.seen_first[m] || col >= s.seen_end[m]) continue;
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

template <class Config>
void backward_tile(const BackwardLayout& l, const Problem& problem, const ScoreFactors& factors,
                   const BackwardTile& t, const BackwardScratch& s) {
  multiply_scores_of_tile(l, problem, t, s);
  const bool finite = make_weights<Config>(factors, t, s, l.ld_m);
  if (t.edge && !finite) {
    add_visible_gradients(l, problem, t, s);
  } else {
    add_gradients(l, problem, t, s);
  }
}

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
