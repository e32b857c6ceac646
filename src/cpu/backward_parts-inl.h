// Gradients of the parts' own inputs. dbias is summed over the dimensions in which bias is
// broadcast, in a fixed order: one unit makes a piece of dbias from all heads and rows that add to
// it, and computes their scores once more. dsinks needs the rows alone. Included once per
// instruction set.
#if defined(INGOT_CPU_BACKWARD_PARTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_BACKWARD_PARTS_INL_H
#undef INGOT_CPU_BACKWARD_PARTS_INL_H
#else
#define INGOT_CPU_BACKWARD_PARTS_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

/// One unit: a block of rows of one (batch, head) of dbias, or all rows if it has one for all.
class BiasWorker {
 public:
  BiasWorker(const BackwardCall& call, const BackwardUnit& unit, float* scratch)
      : call_(call), problem_(call.problem), l_(call.layout), unit_(unit), scratch_(scratch) {}

  void run() {
    const Shape& shape = problem_.parts.bias_shape;
    // With one col for all keys there is something to store even without a key.
    const Index step = shape[3] == 1 ? std::max<Index>(problem_.seqlen_k, 1) : l_.block_n;
    const Index all = shape[3] == 1 ? step : problem_.seqlen_k;
    for (Index col = 0; col < all; col += step) {
      const Index end = std::min(col + step, problem_.seqlen_k);
      std::fill_n(sums(), l_.block_n * l_.ld_m, 0.0F);
      for (Index b = first_of(0); b < end_of(0); ++b) {
        for (Index h = first_of(1); h < end_of(1); ++h) add_head(b, h, col, end);
      }
      store(col, std::min(end - col, l_.block_n));
    }
  }

 private:
  float* sums() const { return scratch_ + l_.dscore; }

  /// The batch entries and heads that add to the unit's piece.
  Index first_of(std::size_t i) const {
    return problem_.parts.bias_shape[i] == 1 ? 0 : (i == 0 ? unit_.batch : unit_.head_first);
  }
  Index end_of(std::size_t i) const {
    if (problem_.parts.bias_shape[i] != 1) return first_of(i) + 1;
    return i == 0 ? problem_.batch : problem_.num_heads;
  }

  /// Adds the pairs of rows of one head and keys [col, end): those of all blocks of rows lie on
  /// each other, as those of all tiles of keys do if end - col is more than one.
  void add_head(Index batch, Index head, Index col, Index end) {
    BackwardUnit unit = unit_;
    unit.batch = batch;
    unit.head_first = head;
    unit.head_end = head + 1;
    unit.head_kv = head / (problem_.num_heads / problem_.num_heads_kv);
    unit.col_first = col;
    unit.col_end = end;
    BackwardWorker(call_, unit, scratch_, sums()).run();
  }

  /// Sums over the rows and keys that bias has once, then into dbias.
  void store(Index col, Index cols) {
    const Shape& shape = problem_.parts.bias_shape;
    Index rows = std::min(unit_.row_end - unit_.row_first, l_.block_m);
    Index row = unit_.row_first;
    if (shape[2] == 1) {
      for (Index j = 0; j < cols; ++j) fold(sums() + j * l_.ld_m, rows, 1);
      row = 0, rows = 1;
    }
    if (shape[3] == 1) {
      for (Index m = 0; m < rows; ++m) fold(sums() + m, cols, l_.ld_m);
      col = 0, cols = 1;
    }
    Rows to =
        head_rows(call_.args.dbias, problem_.parts.dbias_dtype, unit_.batch, unit_.head_first);
    to.data = static_cast<char*>(to.data) + col * to.dim_stride * size_bytes(to.dtype);
    float* const ones = scratch_ + l_.ones;
    std::fill_n(ones, l_.block_m, 1.0F);
    store_transposed(sums(), l_.ld_m, ones, to, {row, rows, cols});
  }

  /// The first of `count` numbers becomes their sum.
  static void fold(float* first, Index count, Index step) {
    double sum = 0;
    for (Index i = 0; i < count; ++i) sum += static_cast<double>(first[i * step]);
    *first = static_cast<float>(sum);
  }

  const BackwardCall& call_;
  const Problem& problem_;
  const BackwardLayout& l_;
  const BackwardUnit unit_;
  float* const scratch_;
};

/// Zeros for a block of rows of a dbias that is not broadcast, of which tiles that no row sees are
/// left out.
inline void clear_dbias(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  const Problem& p = call.problem;
  Rows to = head_rows(call.args.dbias, p.parts.dbias_dtype, unit.batch, unit.head_first);
  const Index step = call.layout.block_n;
  std::fill_n(scratch, step, 0.0F);
  const auto bytes = step * to.dim_stride * size_bytes(to.dtype);
  for (Index col = 0; col < p.seqlen_k;
       col += step, to.data = static_cast<char*>(to.data) + bytes) {
    throw_if_cancelled(call.args.submission);
    store_rows(scratch, 0, to,
               {unit.row_first, unit.row_end - unit.row_first, std::min(step, p.seqlen_k - col)});
  }
}

/// dsinks of one head: of every row, -exp(sink - lse) * delta.
inline void run_sinks_unit(const BackwardCall& call, Index head, float* scratch) {
  const Problem& p = call.problem;
  const BackwardArgs& args = call.args;
  const Index padded = whole_vectors(p.head_dim_v);
  float *const o_row = scratch, *const dout_row = scratch + padded;
  double sum = 0;
  for (Index b = 0; b < p.batch; ++b) {
    throw_if_cancelled(args.submission);
    const double sink = static_cast<double>(PartReader(p, args.parts, b).natural_sink(head));
    const ConstRows o = head_rows(args.o, p.o, b, head);
    const ConstRows dout = head_rows(args.dout, p.dout, b, head);
    const ConstRows lse = head_rows(args.lse, Dtype::f32, b, head);
    for (Index row = 0; row < p.seqlen_q; ++row) {
      if (row % 1024 == 0) throw_if_cancelled(args.submission);
      const float row_lse = static_cast<const float*>(lse.data)[row * lse.row_stride];
      const double weight = std::exp(sink - static_cast<double>(row_lse));
      if (sink == -std::numeric_limits<double>::infinity()) continue;
      load_rows(o, {row, 1, p.head_dim_v}, o_row, padded, padded);
      load_rows(dout, {row, 1, p.head_dim_v}, dout_row, padded, padded);
      Vec delta(0.0F);
      for (Index d = 0; d < padded; d += kLanes)
        delta = fma_(Vec::load(o_row + d), Vec::load(dout_row + d), delta);
      sum -= weight * static_cast<double>(sum_of_lanes(delta));
    }
  }
  const auto result = static_cast<float>(sum);
  store_rows(&result, 1, head_rows(args.dsinks, p.parts.dsinks_dtype, 0, head), {0, 1, 1});
}

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
