// lse anew where it is large. In f32 it is off by some |lse| * 2^-24, and weights exp(score - lse)
// with it: by 5 in 1,000 at 8e4, by any factor beyond 1e7. So, before the units of the backward
// pass, the rows of large |lse| get it in two numbers, their largest value and log2 of the sum of
// exp2(value - largest), from the same products as the pass itself makes. It costs these rows one
// product more. Included once per instruction set.
#if defined(INGOT_CPU_BACKWARD_LSE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_BACKWARD_LSE_INL_H
#undef INGOT_CPU_BACKWARD_LSE_INL_H
#else
#define INGOT_CPU_BACKWARD_LSE_INL_H
#endif

#include <algorithm>
#include <cmath>

#include "cpu/backward_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

class LseWorker : private BackwardBlock {
 public:
  /// unit: one block of query rows of one head, all keys.
  LseWorker(const BackwardCall& call, const BackwardUnit& unit, float* scratch, float* split_lse)
      : BackwardBlock(call, unit, scratch),
        split_lse_(split_lse),
        row_max_(s_.ds),
        row_sum_(s_.ds + l_.ld_m) {
    row_ = unit.row_first;
    rows_ = unit.row_end - unit.row_first;
  }

  void run() {
    const Index head = unit_.head_first;
    load_lse(head);
    if (any_large(head)) {
      add_keys(head);
      for (Index m = 0; m < rows_; ++m) settle(m, given_lse(head, m));
    }
    const Index first = split_lse_index(problem_, unit_.batch, head, row_);
    std::copy_n(s_.lse, rows_, split_lse_ + first);
    std::copy_n(s_.lse_low, rows_, split_lse_ + split_lse_plane(problem_) + first);
  }

 private:
  bool any_large(Index head) const {
    bool any = false;
    for (Index m = 0; m < rows_; ++m) any = any || is_large_lse(given_lse(head, m));
    return any;
  }

  void add_keys(Index head) {
    load_transposed_queries(head);
    const float sink = parts_.sink(head);
    std::fill_n(row_max_, l_.block_m, sink);
    std::fill_n(row_sum_, l_.block_m, sink == -infinity ? 0.0F : 1.0F);
    const Index end = band_.col_end(row_ + rows_ - 1);
    for (Index col = band_.col_begin(row_) / l_.block_n * l_.block_n; col < end;
         col += l_.block_n) {
      throw_if_cancelled(args_.submission);
      BackwardTile t;
      t.cols = std::min(l_.block_n, problem_.seqlen_k - col);
      t.row_end = rows_;
      t.lane_end = whole_vectors(rows_);
      t.k = key_rows(args_.k, problem_.k, {col, t.cols, problem_.head_dim}, s_.k, l_.ld_q);
      if (!load_parts(head, col, t)) continue;
      find_visible(col, t);
      multiply_scores_of_tile(l_, problem_, t, s_);
      for (Index m = 0; m < t.lane_end; m += kLanes) {
        if (problem_.softcap > 0.0F) {
          add_tile<CappedScore>(m, t);
        } else {
          add_tile<PlainScore>(m, t);
        }
      }
    }
  }

  /// The rows of one vector.
  template <class Score>
  void add_tile(Index m, const BackwardTile& t) {
    const Vec first = Vec::load(s_.seen_first + m), end = Vec::load(s_.seen_end + m);
    Vec highest(-infinity);
    for (Index j = 0; j < t.cols; ++j) {
      const Index place = j * l_.ld_m + m;
      float* const at = s_.p + place;
      Vec value = value_log2<Score>(factors_, Vec::load(at));
      if (s_.parts.added != nullptr)
        value = fma_(Vec::load(s_.parts.added + place), Vec(kLog2E), value);
      if (t.seen != nullptr) value = where_set(Vec::load(t.seen + place), value, Vec(-infinity));
      const Vec seen = where_inside(Vec(static_cast<float>(j)), first, end, value, Vec(-infinity));
      seen.store(at);
      highest = max_(highest, seen);
    }
    OnlineSoftmax<Vec> softmax{Vec::load(row_max_ + m), Vec::load(row_sum_ + m)};
    softmax.raise_max(highest);
    Vec sum(0.0F);
    for (Index j = 0; j < t.cols; ++j) {
      sum = sum + exp2_(Vec::load(s_.p + j * l_.ld_m + m) - softmax.offset());
    }
    softmax.row_max.store(row_max_ + m);
    (softmax.row_sum + sum).store(row_sum_ + m);
  }

  /// The lse that was given may be that of more keys than there are here, as where a sequence is
  /// shared out. It tells by being larger than its rounding explains; then it counts, but for a
  /// weight beyond 1.
  void settle(Index m, float given) {
    constexpr double ln_2 = 0.69314718055994530942, rounding = 0x1p-21;
    const double low = std::log2(static_cast<double>(row_sum_[m]));
    const double own = (static_cast<double>(row_max_[m]) + low) * ln_2;
    if (!is_large_lse(given) || !std::isfinite(own)) return;
    if (static_cast<double>(given) - own > rounding * std::fabs(static_cast<double>(given))) {
      s_.lse[m] = std::max(s_.lse[m], row_max_[m]);
    } else {
      s_.lse[m] = row_max_[m];
      s_.lse_low[m] = static_cast<float>(low);
    }
  }

  float* const split_lse_;
  float *const row_max_, *const row_sum_;
};

inline void run_lse_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch,
                         float* split_lse) {
  LseWorker(call, unit, scratch, split_lse).run();
}

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
