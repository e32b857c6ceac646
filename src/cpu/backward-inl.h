// One unit of the backward pass: blocks of query rows, and for each of them the tiles of keys it
// sees. The three kinds of unit (fused; dq alone; dk and dv alone) are this one loop with different
// ranges, so they sum in the same order and give the same bits. Included once per instruction set.
#if defined(INGOT_CPU_BACKWARD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_BACKWARD_INL_H
#undef INGOT_CPU_BACKWARD_INL_H
#else
#define INGOT_CPU_BACKWARD_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/backward_tile-inl.h"
#include "cpu/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

template <class Config>
class BackwardWorker {
 public:
  BackwardWorker(const BackwardCall& call, const BackwardUnit& unit, float* scratch)
      : problem_(call.problem),
        args_(call.args),
        l_(call.layout),
        unit_(unit),
        s_(call.layout, scratch),
        score_(make_score_params(problem_.scale, problem_.softcap, problem_.seqlen_q,
                                 problem_.seqlen_k, static_cast<int>(problem_.causal),
                                 problem_.window_left, problem_.window_right)),
        factors_(make_score_factors(score_)),
        dq_(unit.dq && args_.dq.data != nullptr),
        dk_(unit.dkv && args_.dk.data != nullptr),
        dv_(unit.dkv && args_.dv.data != nullptr) {}

  void run() {
    std::fill_n(s_.ones, l_.block_m, 1.0F);
    if (dk_) std::fill_n(s_.dk, (unit_.col_end - unit_.col_first) * l_.ld_q, 0.0F);
    if (dv_) std::fill_n(s_.dv, (unit_.col_end - unit_.col_first) * l_.ld_v, 0.0F);
    for (Index head = unit_.head_first; head < unit_.head_end; ++head) {
      for (Index row = unit_.row_first; row < unit_.row_end; row += l_.block_m)
        visit_rows(head, row);
    }
    const Index keys = unit_.col_end - unit_.col_first;
    if (dk_) {
      store_rows(s_.dk, l_.ld_q, head_rows(args_.dk, problem_.dk, unit_.batch, unit_.head_kv),
                 {unit_.col_first, keys, problem_.head_dim});
    }
    if (dv_) {
      store_rows(s_.dv, l_.ld_v, head_rows(args_.dv, problem_.dv, unit_.batch, unit_.head_kv),
                 {unit_.col_first, keys, problem_.head_dim_v});
    }
  }

 private:
  bool needs_ds() const { return dq_ || dk_; }

  /// All tiles of one block of query rows.
  void visit_rows(Index head, Index row) {
    row_ = row;
    rows_ = std::min(l_.block_m, unit_.row_end - row);
    const Index begin = std::max(col_begin(score_, row), unit_.col_first);
    const Index end = std::min(col_end(score_, row + rows_ - 1), unit_.col_end);
    if (begin < end) load_block(head);
    if (dq_) std::fill_n(s_.dq_t, problem_.head_dim * l_.ld_m, 0.0F);
    for (Index col = begin / l_.block_n * l_.block_n; col < end; col += l_.block_n) visit_keys(col);
    if (dq_) {
      store_transposed(s_.dq_t, l_.ld_m, s_.ones,
                       head_rows(args_.dq, problem_.dq, unit_.batch, head),
                       {row, rows_, problem_.head_dim});
    }
  }

  /// One tile, or several lower ones on the edge of the mask, where fewer keys leave less of a tile
  /// that is computed for nothing.
  void visit_keys(Index col) {
    constexpr Index edge_cols = 32;
    const Index end = std::min(col + l_.block_n, problem_.seqlen_k);
    const bool full = is_full(score_, row_, row_ + rows_ - 1, col, end - 1);
    const Index step = full ? end - col : edge_cols;
    for (; col < end; col += step) visit_tile(col, std::min(step, end - col));
  }

  void visit_tile(Index col, Index cols) {
    BackwardTile t;
    t.cols = cols;
    t.row_first = std::max(row_begin(score_, col) - row_, Index{0});
    t.row_end = std::min(row_end(score_, col + t.cols - 1) - row_, rows_);
    if (t.row_first >= t.row_end) return;
    t.lane_first = t.row_first / kLanes * kLanes;
    t.lane_end = whole_vectors(t.row_end);
    // dQ takes whole vectors: their other lanes must see all keys, too, or be masked.
    const Index lane_last = std::min(t.lane_end, rows_) - 1;
    t.edge = has_dead_row_ ||
             !is_full(score_, row_ + t.lane_first, row_ + lane_last, col, col + t.cols - 1);
    if (t.edge) find_visible(col, t);
    t.dq = dq_;
    t.dk = dk_ ? s_.dk + (col - unit_.col_first) * l_.ld_q : nullptr;
    t.dv = dv_ ? s_.dv + (col - unit_.col_first) * l_.ld_v : nullptr;
    t.k = key_rows(args_.k, problem_.k, {col, t.cols, problem_.head_dim}, s_.k, l_.ld_q);
    if (needs_ds())
      t.v = key_rows(args_.v, problem_.v, {col, t.cols, problem_.head_dim_v}, s_.v, l_.ld_v);
    backward_tile<Config>(l_, problem_, factors_, t, s_);
  }

  /// f32 rows close to each other are used where they are. Others are copied: far apart, the rows
  /// of a tile would fall into the same few sets of the L1 cache.
  KeyRows key_rows(const ConstTensor& from, Dtype dtype, const Part& part, float* tile, Index ld) {
    constexpr Index far_apart = 512;
    const ConstRows rows = head_rows(from, dtype, unit_.batch, unit_.head_kv);
    if (is_plain_f32(rows) && rows.row_stride >= 0 && rows.row_stride < far_apart) {
      return {static_cast<const float*>(rows.data) + part.row * rows.row_stride, rows.row_stride};
    }
    load(from, dtype, unit_.head_kv, part, tile, ld);
    return {tile, ld};
  }

  /// What each row sees of the keys of the tile, counted from its first key.
  void find_visible(Index col, const BackwardTile& t) {
    for (Index m = t.lane_first; m < t.lane_end; ++m) {
      const bool dead = m >= rows_ || s_.lse[m] == infinity;
      const Index first = clamp_index(col_begin(score_, row_ + m) - col, 0, t.cols);
      const Index end = clamp_index(col_end(score_, row_ + m) - col, 0, t.cols);
      s_.seen_first[m] = static_cast<float>(first);
      s_.seen_end[m] = dead ? 0.0F : static_cast<float>(end);
    }
  }

  void load_block(Index head) {
    const Part q{row_, rows_, problem_.head_dim};
    load(args_.q, problem_.q, head, q, s_.q, l_.ld_q);
    load_transposed(head_rows(args_.q, problem_.q, unit_.batch, head), q, 1.0F, s_.q_t, l_.ld_m);
    const Part out{row_, rows_, problem_.head_dim_v};
    load(args_.dout, problem_.dout, head, out, s_.dout, l_.ld_v);
    load_lse(head);
    if (!needs_ds()) return;
    load_transposed(head_rows(args_.dout, problem_.dout, unit_.batch, head), out, 1.0F, s_.dout_t,
                    l_.ld_m);
    load_delta(head);
  }

  void load(const ConstTensor& from, Dtype dtype, Index head, const Part& part, float* tile,
            Index ld) {
    load_rows(head_rows(from, dtype, unit_.batch, head), part, tile, ld, whole_vectors(part.dims));
  }

  /// In the base-2 domain. A row without weight gets +inf: exp2(value - inf) is its weight of 0.
  void load_lse(Index head) {
    constexpr float log2_e = 1.44269504088896340736F;
    const ConstRows lse = head_rows(args_.lse, Dtype::f32, unit_.batch, head);
    const float* const from = static_cast<const float*>(lse.data);
    has_dead_row_ = false;
    std::fill_n(s_.lse, l_.block_m, infinity);
    for (Index m = 0; m < rows_; ++m) {
      const float x = from[(row_ + m) * lse.row_stride];
      const bool dead = x == -infinity;
      has_dead_row_ = has_dead_row_ || dead;
      s_.lse[m] = dead ? infinity : x * log2_e;
    }
  }

  /// delta = sum of dout * o over a row. The tile V is not loaded yet and holds a row of o.
  void load_delta(Index head) {
    const ConstRows o = head_rows(args_.o, problem_.o, unit_.batch, head);
    const Index padded = whole_vectors(problem_.head_dim_v);
    std::fill_n(s_.delta, l_.block_m, 0.0F);
    for (Index m = 0; m < rows_; ++m) {
      load_rows(o, {row_ + m, 1, problem_.head_dim_v}, s_.v, padded, padded);
      Vec sum(0.0F);
      for (Index d = 0; d < padded; d += kLanes) {
        sum = fma_(Vec::load(s_.v + d), Vec::load(s_.dout + m * l_.ld_v + d), sum);
      }
      s_.delta[m] = hn::GetLane(hn::SumOfLanes(Vec::Tag(), sum.raw));
    }
  }

  static constexpr float infinity = std::numeric_limits<float>::infinity();

  const Problem& problem_;
  const BackwardArgs& args_;
  const BackwardLayout& l_;
  const BackwardUnit& unit_;
  const BackwardScratch s_;
  const ScoreParams score_;
  const ScoreFactors factors_;
  const bool dq_, dk_, dv_;
  Index row_ = 0, rows_ = 0;  // of the block
  bool has_dead_row_ = false;
};

inline void run_backward_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  if (call.problem.softcap > 0.0F) {
    BackwardWorker<SoftcapVariant>(call, unit, scratch).run();
  } else {
    BackwardWorker<PlainVariant>(call, unit, scratch).run();
  }
}

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
