// The forward pass of one unit: S^T = K Q^T, online softmax along the keys with one query row a
// lane, O^T += V^T P^T.
#if defined(INGOT_CPU_FORWARD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_FORWARD_INL_H
#undef INGOT_CPU_FORWARD_INL_H
#else
#define INGOT_CPU_FORWARD_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/copy-inl.h"
#include "cpu/forward.hpp"
#include "cpu/merge-inl.h"
#include "cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

/// A panel: the query rows in the lanes of one or two vectors, with what they have summed so far.
struct Panel {
  float *q_t, *o_t, *row_max, *row_sum;
  Index lane_first, lanes;    // of the block, in use
  Index row_first, row_last;  // lowest and highest query row in it
  bool empty = true;          // no tile has been added yet
};

template <class Variant>
class ForwardUnit {
 public:
  ForwardUnit(const ForwardCall& call, Index unit, float* scratch);
  void run();

 private:
  void load_panel(Index index);
  void visit_tile(Panel& panel, Index tile_first, Index tile_cols, TileRows k, TileRows v);
  float scores(const Panel& panel, Index cols, const TileRows& k, bool full);
  void transform(const Panel& panel, Index cols, bool full);
  bool raise(Panel& panel);
  void weigh(Panel& panel, Index cols, float scale);
  void add_values(Panel& panel, Index cols, const TileRows& v, bool rescale);
  void add_visible_values(Panel& panel, Index cols, const TileRows& v);
  void set_bounds(const Panel& panel, Index col_first, Index cols);
  void finish_panel(Panel& panel);
  void store_panel(const Panel& panel, const float* factor);
  void store_partial(const Panel& panel, const float* ones);
  TileRows tile_rows(const ConstRows& rows, Index col_first, Index cols, Index dims, float* copy,
                     Index ld) const;
  bool finite(const TileRows& v, Index cols) const;

  Index used_lanes(const Panel& panel) const {
    return (panel.lanes + kLanes - 1) / kLanes * kLanes;
  }
  Index row_of(Index lane) const { return block_.row + lane % block_.rows; }
  Index head_of(Index lane) const { return block_.head + lane / block_.rows; }

  const ForwardCall& call_;
  const Index unit_;
  const RowBlock block_;
  const ScoreParams params_;
  const ScoreFactors factors_;
  const Index width_;  // lanes of a panel: the row of its tiles
  float* const scratch_;
  float *s_t_, *tile_max_, *correction_, *offset_, *seen_first_, *seen_end_;
  static constexpr Index kMostPanels = 8;
  Panel panels_[kMostPanels];
};

template <class Variant>
ForwardUnit<Variant>::ForwardUnit(const ForwardCall& call, Index unit, float* scratch)
    : call_(call),
      unit_(unit),
      block_(row_block(call.problem, call.grid, call.config.block_m, unit / call.grid.split_k)),
      params_(make_score_params(call.problem.scale, call.problem.softcap, call.problem.seqlen_q,
                                call.problem.seqlen_k, static_cast<int>(call.problem.causal),
                                call.problem.window_left, call.problem.window_right)),
      factors_(make_score_factors(params_)),
      width_(call.layout.panel),
      scratch_(scratch) {
  s_t_ = scratch + call.layout.scores;
  tile_max_ = s_t_ + width_ * call.config.block_n;
  correction_ = tile_max_ + width_;
  offset_ = correction_ + width_;
  seen_first_ = offset_ + width_;
  seen_end_ = seen_first_ + width_;
}

template <class Variant>
void ForwardUnit<Variant>::run() {
  const Config& c = call_.config;
  const Index panels = (block_.lanes() + width_ - 1) / width_;
  for (Index i = 0; i < panels; ++i) load_panel(i);

  const Index chunk = unit_ % call_.grid.split_k * call_.grid.keys_per_chunk;
  const Index begin = std::max(col_begin(params_, block_.row), chunk);
  const Index end =
      std::min(col_end(params_, block_.row + block_.rows - 1), chunk + call_.grid.keys_per_chunk);
  const Index head_kv = block_.head / (call_.problem.num_heads / call_.problem.num_heads_kv);
  const ConstRows k = head_rows(call_.args.k, call_.problem.k, block_.batch, head_kv);
  const ConstRows v = head_rows(call_.args.v, call_.problem.v, block_.batch, head_kv);
  for (Index col = begin; col < end; col += c.block_n) {
    const Index cols = std::min(c.block_n, end - col);
    const TileRows k_tile =
        tile_rows(k, col, cols, c.head_dim, scratch_ + call_.layout.k, call_.layout.ld_k);
    const TileRows v_tile =
        tile_rows(v, col, cols, c.head_dim_v, scratch_ + call_.layout.v, call_.layout.ld_v);
    for (Index i = 0; i < panels; ++i) visit_tile(panels_[i], col, cols, k_tile, v_tile);
  }
  for (Index i = 0; i < panels; ++i) finish_panel(panels_[i]);
}

// Rows a multiple of this many bytes apart share the same few lines of the L1 cache: a tile of them
// is copied first.
inline constexpr Index kBadStrideBytes = 4096;

template <class Variant>
TileRows ForwardUnit<Variant>::tile_rows(const ConstRows& rows, Index col_first, Index cols,
                                         Index dims, float* copy, Index ld) const {
  const Index stride_bytes = rows.row_stride * static_cast<Index>(sizeof(float));
  if (is_plain_f32(rows) && stride_bytes % kBadStrideBytes != 0) {
    return {static_cast<const float*>(rows.data) + col_first * rows.row_stride, rows.row_stride};
  }
  load_rows(rows, {col_first, cols, dims}, copy, ld, dims);
  return {copy, ld};
}

template <class Variant>
void ForwardUnit<Variant>::load_panel(Index index) {
  const Config& c = call_.config;
  Panel& panel = panels_[index];
  panel = Panel();
  panel.q_t = scratch_ + index * call_.layout.panel_floats;
  panel.o_t = panel.q_t + c.head_dim * width_;
  panel.row_max = panel.o_t + c.head_dim_v * width_;
  panel.row_sum = panel.row_max + width_;
  panel.lane_first = index * width_;
  panel.lanes = std::min(width_, block_.lanes() - panel.lane_first);
  const bool one_head = block_.heads == 1;
  panel.row_first = one_head ? row_of(panel.lane_first) : 0;
  panel.row_last = one_head ? panel.row_first + panel.lanes - 1 : block_.rows - 1;
  std::fill_n(panel.row_max, width_, kMinusInfinity);
  std::fill_n(panel.row_sum, width_, 0.0F);
  if (panel.lanes < width_) std::fill_n(panel.q_t, c.head_dim * width_, 0.0F);
  for (Index lane = 0; lane < panel.lanes;) {
    const Index row = row_of(panel.lane_first + lane);
    const Index count = std::min(panel.lanes - lane, block_.row + block_.rows - row);
    const ConstRows q =
        head_rows(call_.args.q, call_.problem.q, block_.batch, head_of(panel.lane_first + lane));
    load_lanes(q, {row, count, c.head_dim}, 1.0F, panel.q_t + lane, width_);
    lane += count;
  }
}

// The panel's part of a tile: the cols that at least one of its rows sees.
template <class Variant>
void ForwardUnit<Variant>::visit_tile(Panel& panel, Index tile_first, Index tile_cols, TileRows k,
                                      TileRows v) {
  const Index col_first = std::max(tile_first, col_begin(params_, panel.row_first));
  const Index col_last = std::min(tile_first + tile_cols, col_end(params_, panel.row_last)) - 1;
  if (col_first > col_last) return;
  const Index cols = col_last - col_first + 1;
  k.data += (col_first - tile_first) * k.row_stride;
  v.data += (col_first - tile_first) * v.row_stride;
  const bool full = is_full(params_, panel.row_first, panel.row_last, col_first, col_last);
  if (!full) set_bounds(panel, col_first, cols);
  const float scale = scores(panel, cols, k, full);
  const bool rescale = raise(panel);
  weigh(panel, cols, scale);
  if (full || finite(v, cols)) {
    add_values(panel, cols, v, rescale);
  } else {
    add_visible_values(panel, cols, v);
  }
  panel.empty = false;
}

// What each lane sees of the tile: cols [seen_first, seen_end) counted from col_first.
template <class Variant>
void ForwardUnit<Variant>::set_bounds(const Panel& panel, Index col_first, Index cols) {
  for (Index lane = 0; lane < width_; ++lane) {
    const Index row = row_of(std::min(panel.lane_first + lane, block_.lanes() - 1));
    seen_first_[lane] =
        static_cast<float>(clamp_index(col_begin(params_, row) - col_first, 0, cols));
    seen_end_[lane] = static_cast<float>(clamp_index(col_end(params_, row) - col_first, 0, cols));
  }
}

// S^T and, in the base-2 domain, its maxima. Returns what brings S^T into that domain: without mask
// or softcap this is one factor for all, and weigh() has it for nothing.
template <class Variant>
float ForwardUnit<Variant>::scores(const Panel& panel, Index cols, const TileRows& k, bool full) {
  const Product product = {.rows = cols,
                           .cols = used_lanes(panel),
                           .depth = call_.config.head_dim,
                           .a = k.data,
                           .a_row = k.row_stride,
                           .a_depth = 1,
                           .b = panel.q_t,
                           .b_depth = width_,
                           .c = s_t_,
                           .c_row = width_};
  std::fill_n(tile_max_, width_, kMinusInfinity);
  if (full && !Variant::softcap && factors_.scale_log2 > 0.0F) {
    multiply_with_max(product, tile_max_);
    for (Index lane = 0; lane < width_; ++lane) tile_max_[lane] *= factors_.scale_log2;
    return factors_.scale_log2;
  }
  multiply(product);
  transform(panel, cols, full);
  return 1.0F;
}

template <class Variant>
void ForwardUnit<Variant>::transform(const Panel& panel, Index cols, bool full) {
  const Vec minus_infinity(kMinusInfinity);
  for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
    const Vec first = full ? Vec(0.0F) : Vec::load(seen_first_ + lane);
    const Vec end = full ? Vec(static_cast<float>(cols)) : Vec::load(seen_end_ + lane);
    Vec highest = minus_infinity;
    for (Index j = 0; j < cols; ++j) {
      float* const at = s_t_ + j * width_ + lane;
      const Vec value = value_log2<Variant>(factors_, Vec::load(at));
      const Vec seen = where_inside(Vec(static_cast<float>(j)), first, end, value, minus_infinity);
      seen.store(at);
      highest = max_(highest, seen);
    }
    highest.store(tile_max_ + lane);
  }
}

// Takes the tile's maxima into the running ones. Does O have to be multiplied by correction_?
template <class Variant>
bool ForwardUnit<Variant>::raise(Panel& panel) {
  bool changed = false;
  for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
    OnlineSoftmax<Vec> softmax{Vec::load(panel.row_max + lane), Vec::load(panel.row_sum + lane)};
    const Vec correction = softmax.raise_max(Vec::load(tile_max_ + lane));
    changed = changed || any_differs(correction, Vec(1.0F));
    correction.store(correction_ + lane);
    softmax.offset().store(offset_ + lane);
    softmax.row_max.store(panel.row_max + lane);
    softmax.row_sum.store(panel.row_sum + lane);
  }
  return changed;
}

// P^T = exp2(scale * S^T - maximum), and its sums.
template <class Variant>
void ForwardUnit<Variant>::weigh(Panel& panel, Index cols, float scale) {
  for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
    const Vec minus_offset = Vec(0.0F) - Vec::load(offset_ + lane);
    Vec sum = Vec::load(panel.row_sum + lane);
    for (Index j = 0; j < cols; ++j) {
      float* const at = s_t_ + j * width_ + lane;
      const Vec p = exp2_(fma_(Vec::load(at), Vec(scale), minus_offset));
      p.store(at);
      sum = sum + p;
    }
    sum.store(panel.row_sum + lane);
  }
}

template <class Variant>
void ForwardUnit<Variant>::add_values(Panel& panel, Index cols, const TileRows& v, bool rescale) {
  multiply({.rows = call_.config.head_dim_v,
            .cols = used_lanes(panel),
            .depth = cols,
            .a = v.data,
            .a_row = 1,
            .a_depth = v.row_stride,
            .b = s_t_,
            .b_depth = width_,
            .c = panel.o_t,
            .c_row = width_,
            .start = panel.empty ? Start::zero
                     : rescale   ? Start::scaled
                                 : Start::add,
            .col_factor = correction_});
}

// The values hold an Inf or NaN and some rows do not see all of them: 0 times those must not reach
// a row.
template <class Variant>
void ForwardUnit<Variant>::add_visible_values(Panel& panel, Index cols, const TileRows& v) {
  for (Index d = 0; d < call_.config.head_dim_v; ++d) {
    for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
      float* const at = panel.o_t + d * width_ + lane;
      Vec sum = panel.empty ? Vec(0.0F) : Vec::load(at) * Vec::load(correction_ + lane);
      const Vec first = Vec::load(seen_first_ + lane);
      const Vec end = Vec::load(seen_end_ + lane);
      for (Index j = 0; j < cols; ++j) {
        const Vec more =
            fma_(Vec(v.data[j * v.row_stride + d]), Vec::load(s_t_ + j * width_ + lane), sum);
        sum = where_inside(Vec(static_cast<float>(j)), first, end, more, sum);
      }
      sum.store(at);
    }
  }
}

template <class Variant>
bool ForwardUnit<Variant>::finite(const TileRows& v, Index cols) const {
  // x - x is 0 for every finite x and NaN for the others.
  Vec sum(0.0F);
  float rest = 0.0F;
  for (Index j = 0; j < cols; ++j) {
    const float* const row = v.data + j * v.row_stride;
    Index d = 0;
    for (; d + kLanes <= call_.config.head_dim_v; d += kLanes) {
      const Vec x = Vec::load(row + d);
      sum = sum + (x - x);
    }
    for (; d < call_.config.head_dim_v; ++d) rest += row[d] - row[d];
  }
  return !any_differs(sum, Vec(0.0F)) && rest == 0.0F;
}

template <class Variant>
void ForwardUnit<Variant>::finish_panel(Panel& panel) {
  if (panel.empty) std::fill_n(panel.o_t, call_.config.head_dim_v * width_, 0.0F);
  float* const factor = correction_;
  if (call_.partials != nullptr) {
    std::fill_n(factor, width_, 1.0F);
    store_partial(panel, factor);
    return;
  }
  for (Index lane = 0; lane < panel.lanes; ++lane) {
    factor[lane] = weight_factor(panel.row_sum[lane]);
  }
  store_panel(panel, factor);
}

template <class Variant>
void ForwardUnit<Variant>::store_panel(const Panel& panel, const float* factor) {
  for (Index lane = 0; lane < panel.lanes;) {
    const Index head = head_of(panel.lane_first + lane);
    const Index row = row_of(panel.lane_first + lane);
    const Index count = std::min(panel.lanes - lane, block_.row + block_.rows - row);
    const Rows o = head_rows(call_.args.o, call_.problem.o, block_.batch, head);
    store_transposed(panel.o_t + lane, width_, factor + lane, o,
                     {row, count, call_.config.head_dim_v});
    for (Index i = lane; i < lane + count; ++i) {
      store_lse(call_, block_.batch, head, row + i - lane, panel.row_max[i], panel.row_sum[i]);
    }
    lane += count;
  }
}

template <class Variant>
void ForwardUnit<Variant>::store_partial(const Panel& panel, const float* ones) {
  const Index floats = partial_floats(call_.config);
  float* const first = call_.partials + (unit_ * call_.config.block_m + panel.lane_first) * floats;
  const Rows to = {first, Dtype::f32, floats, 1};
  store_transposed(panel.o_t, width_, ones, to, {0, panel.lanes, call_.config.head_dim_v});
  for (Index lane = 0; lane < panel.lanes; ++lane) {
    first[lane * floats + call_.config.head_dim_v] = panel.row_max[lane];
    first[lane * floats + call_.config.head_dim_v + 1] = panel.row_sum[lane];
  }
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
