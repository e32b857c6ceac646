// One unit of the forward pass: its panels of query rows, how they are loaded and stored.
#if defined(INGOT_CPU_FORWARD_UNIT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_FORWARD_UNIT_INL_H
#undef INGOT_CPU_FORWARD_UNIT_INL_H
#else
#define INGOT_CPU_FORWARD_UNIT_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/copy-inl.h"
#include "cpu/forward.hpp"
#include "cpu/merge-inl.h"
#include "cpu/parts-inl.h"
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

class ForwardUnit {
 public:
  ForwardUnit(const ForwardCall& call, Index unit, float* scratch);
  void run();

 private:
  void load_panel(Index index);
  void visit_tile(Panel& panel, Index tile_first, Index tile_cols, TileRows k, TileRows v);
  template <class F>
  void for_runs(const Panel& panel, F&& f) const;
  Shown load_parts(const Panel& panel, Index col_first, Index cols);
  float scores(const Panel& panel, Index cols, const TileRows& k, bool full);
  bool scale_maxima(Index lanes);
  template <class Score, bool kFull>
  void transform(const Panel& panel, Index cols);
  bool raise(Panel& panel);
  void weigh(Panel& panel, Index cols, float scale);
  void drop(const Panel& panel, Index cols);
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
  const PartReader parts_;
  const Band band_;
  const ScoreFactors factors_;
  const bool capped_;
  const Index width_;  // lanes of a panel: the row of its tiles
  const PartTiles tiles_;
  const float* seen_ = nullptr;  // tiles_.seen if the mask hides some pairs of the tile
  float* const scratch_;
  float *s_t_, *tile_max_, *correction_, *offset_, *seen_first_, *seen_end_;
  static constexpr Index kMostPanels = 8;
  Panel panels_[kMostPanels];
};

inline ForwardUnit::ForwardUnit(const ForwardCall& call, Index unit, float* scratch)
    : call_(call),
      unit_(unit),
      block_(row_block(call.problem, call.grid, call.config.block_m, unit / call.grid.split_k)),
      parts_(call.problem, call.args.parts, block_.batch),
      band_(parts_.band()),
      factors_(make_score_factors(band_.p)),
      capped_(call.problem.softcap > 0.0F),
      width_(call.layout.panel),
      tiles_(call.layout.parts, scratch),
      scratch_(scratch) {
  s_t_ = scratch + call.layout.scores;
  tile_max_ = s_t_ + width_ * call.config.block_n;
  correction_ = tile_max_ + width_;
  offset_ = correction_ + width_;
  seen_first_ = offset_ + width_;
  seen_end_ = seen_first_ + width_;
}

// The runs of rows of one head in a panel.
template <class F>
void ForwardUnit::for_runs(const Panel& panel, F&& f) const {
  for (Index lane = 0; lane < panel.lanes;) {
    const Index row = row_of(panel.lane_first + lane);
    const Index count = std::min(panel.lanes - lane, block_.row + block_.rows - row);
    f(LaneRun{lane, count, head_of(panel.lane_first + lane), row});
    lane += count;
  }
}

inline void ForwardUnit::load_panel(Index index) {
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
  const bool first_chunk = unit_ % call_.grid.split_k == 0;  // a row's sink counts once
  if (panel.lanes < width_) std::fill_n(panel.q_t, c.head_dim * width_, 0.0F);
  for_runs(panel, [&](const LaneRun& run) {
    const ConstRows q = head_rows(call_.args.q, call_.problem.q, block_.batch, run.head);
    load_lanes(q, {run.row, run.count, c.head_dim}, 1.0F, panel.q_t + run.lane, width_);
    const float sink = first_chunk ? parts_.sink(run.head) : kMinusInfinity;
    if (sink == kMinusInfinity) return;
    std::fill_n(panel.row_max + run.lane, run.count, sink);
    std::fill_n(panel.row_sum + run.lane, run.count, 1.0F);
  });
}

inline void ForwardUnit::finish_panel(Panel& panel) {
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

inline void ForwardUnit::store_panel(const Panel& panel, const float* factor) {
  for_runs(panel, [&](const LaneRun& run) {
    const Rows o = head_rows(call_.args.o, call_.problem.o, block_.batch, run.head);
    store_transposed(panel.o_t + run.lane, width_, factor + run.lane, o,
                     {run.row, run.count, call_.config.head_dim_v});
    for (Index i = run.lane; i < run.lane + run.count; ++i) {
      store_lse(call_, block_.batch, run.head, run.row + i - run.lane, panel.row_max[i],
                panel.row_sum[i]);
    }
  });
}

inline void ForwardUnit::store_partial(const Panel& panel, const float* ones) {
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
