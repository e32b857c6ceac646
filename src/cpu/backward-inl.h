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

#include "cpu/backward_block-inl.h"
#include "cpu/backward_lse-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

class BackwardWorker : private BackwardBlock {
 public:
  /// dscore: [block_n][ld_m], gets what dbias does of the unit's pairs, blocks of rows and tiles of
  /// keys one on the other; null: not wanted.
  BackwardWorker(const BackwardCall& call, const BackwardUnit& unit, float* scratch,
                 float* dscore = nullptr)
      : BackwardBlock(call, unit, scratch),
        dscore_(dscore),
        dq_(unit.dq && args_.dq.data != nullptr),
        dk_(unit.dkv && args_.dk.data != nullptr),
        dv_(unit.dkv && args_.dv.data != nullptr) {}

  void run() {
    std::fill_n(s_.ones, l_.block_m, 1.0F);
    if (dk_) clear_sums(s_.dk, l_.ld_q);
    if (dv_) clear_sums(s_.dv, l_.ld_v);
    const bool any_row = unit_.row_first < unit_.row_end;  // else any number of heads is no work
    for (Index head = unit_.head_first; any_row && head < unit_.head_end; ++head) {
      for (Index row = unit_.row_first; row < unit_.row_end; row += l_.block_m)
        visit_rows(head, row);
    }
    if (dk_) store_sums(s_.dk, l_.ld_q, args_.dk, problem_.dk, problem_.head_dim);
    if (dv_) store_sums(s_.dv, l_.ld_v, args_.dv, problem_.dv, problem_.head_dim_v);
  }

 private:
  /// Calls f(key, keys) for pieces of the unit's keys that take well below a millisecond each, and
  /// looks in between whether the call is cancelled: the sums of a long sequence are gigabytes.
  template <class F>
  void for_pieces(F&& f) {
    constexpr Index piece = 256;
    const Index all = unit_.col_end - unit_.col_first;
    for (Index key = 0; key < all; key += piece) {
      throw_if_cancelled(args_.submission);
      f(key, std::min(piece, all - key));
    }
  }

  void clear_sums(float* sums, Index ld) {
    for_pieces([&](Index key, Index keys) { std::fill_n(sums + key * ld, keys * ld, 0.0F); });
  }

  void store_sums(const float* sums, Index ld, const Tensor& to, Dtype dtype, Index dims) {
    const Rows rows = head_rows(to, dtype, unit_.batch, unit_.head_kv);
    for_pieces([&](Index key, Index keys) {
      store_rows(sums + key * ld, ld, rows, {unit_.col_first + key, keys, dims});
    });
  }

  bool needs_ds() const { return dq_ || dk_ || dscore_ != nullptr || unit_.dbias; }

  /// All tiles of one block of query rows.
  void visit_rows(Index head, Index row) {
    throw_if_cancelled(args_.submission);
    row_ = row;
    rows_ = std::min(l_.block_m, unit_.row_end - row);
    const Index begin = std::max(band_.col_begin(row), unit_.col_first);
    const Index end = std::min(band_.col_end(row + rows_ - 1), unit_.col_end);
    head_ = head;
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
    throw_if_cancelled(args_.submission);
    constexpr Index edge_cols = 32;
    const Index end = std::min(col + l_.block_n, problem_.seqlen_k);
    const bool full = band_.is_full(row_, row_ + rows_ - 1, col, end - 1);
    const Index step = full ? end - col : edge_cols;
    for (; col < end; col += step) visit_tile(col, std::min(step, end - col));
  }

  void visit_tile(Index col, Index cols) {
    BackwardTile t;
    t.cols = cols;
    t.row_first = std::max(band_.row_begin(col) - row_, Index{0});
    t.row_end = std::min(band_.row_end(col + t.cols - 1) - row_, rows_);
    if (t.row_first >= t.row_end) return;
    t.lane_first = t.row_first / kLanes * kLanes;
    t.lane_end = whole_vectors(t.row_end);
    // dQ takes whole vectors: their other lanes must see all keys, too, or be masked.
    const Index lane_last = std::min(t.lane_end, rows_) - 1;
    if (!load_parts(head_, col, t)) return;
    t.edge = t.seen != nullptr || has_dead_row_ || has_low_lse_ ||
             !band_.is_full(row_ + t.lane_first, row_ + lane_last, col, col + t.cols - 1);
    if (t.edge) find_visible(col, t);
    t.dout_finite = dout_finite_;
    t.dq = dq_;
    t.dk = dk_ ? s_.dk + (col - unit_.col_first) * l_.ld_q : nullptr;
    t.dv = dv_ ? s_.dv + (col - unit_.col_first) * l_.ld_v : nullptr;
    if (dscore_ != nullptr) {
      t.dscore = dscore_ + (col - unit_.col_first) % l_.block_n * l_.ld_m;
    }
    if (unit_.dbias) {
      t.dscore = s_.dscore;
      std::fill_n(s_.dscore, t.cols * l_.ld_m, 0.0F);
    }
    t.k = key_rows(args_.k, problem_.k, {col, t.cols, problem_.head_dim}, s_.k, l_.ld_q);
    if (needs_ds())
      t.v = key_rows(args_.v, problem_.v, {col, t.cols, problem_.head_dim_v}, s_.v, l_.ld_v);
    backward_tile(l_, problem_, factors_, t, s_);
    if (unit_.dbias) store_dbias(col, t);
  }

  /// A tile of a bias that is not broadcast: no other tile adds to it.
  void store_dbias(Index col, const BackwardTile& t) {
    Rows to = head_rows(args_.dbias, problem_.parts.dbias_dtype, unit_.batch, head_);
    to.data = static_cast<char*>(to.data) + col * to.dim_stride * size_bytes(to.dtype);
    store_transposed(s_.dscore + t.row_first, l_.ld_m, s_.ones, to,
                     {row_ + t.row_first, t.row_end - t.row_first, t.cols});
  }

  void load_block(Index head) {
    const Part q{row_, rows_, problem_.head_dim};
    load(args_.q, problem_.q, head, q, s_.q, l_.ld_q);
    load_transposed_queries(head);
    const Part out{row_, rows_, problem_.head_dim_v};
    load(args_.dout, problem_.dout, head, out, s_.dout, l_.ld_v);
    load_lse(head);
    const bool all_visible = !band_.is_masked() && !problem_.parts.mask && !has_dead_row_;
    dout_finite_ = all_visible || is_dout_finite();
    if (!needs_ds()) return;
    load_transposed(head_rows(args_.dout, problem_.dout, unit_.batch, head), out, 1.0F, s_.dout_t,
                    l_.ld_m);
    load_delta(head);
  }

  bool is_dout_finite() const {
    // x - x is 0 for every finite x and NaN for the others.
    Vec sum(0.0F);
    for (Index m = 0; m < rows_; ++m) {
      for (Index d = 0; d < problem_.head_dim_v; d += kLanes) {
        const Vec x = Vec::load(s_.dout + m * l_.ld_v + d);
        sum = sum + (x - x);
      }
    }
    return !any_differs(sum, Vec(0.0F));
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

  float* const dscore_;
  const bool dq_, dk_, dv_;
  Index head_ = 0;
  bool dout_finite_ = true;  // of the block; looked at only if pairs of it are not visible
};

inline void run_backward_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  BackwardWorker(call, unit, scratch).run();
}

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
