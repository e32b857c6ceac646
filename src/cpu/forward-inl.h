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

#include "cpu/forward_unit-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

inline void ForwardUnit::run() {
  const Config& c = call_.config;
  const Index panels = (block_.lanes() + width_ - 1) / width_;
  for (Index i = 0; i < panels; ++i) load_panel(i);

  const Index chunk = unit_ % call_.grid.split_k * call_.grid.keys_per_chunk;
  const Index begin = std::max(band_.col_begin(block_.row), chunk);
  const Index end =
      std::min(band_.col_end(block_.row + block_.rows - 1), chunk + call_.grid.keys_per_chunk);
  const Index head_kv = block_.head / (call_.problem.num_heads / call_.problem.num_heads_kv);
  const ConstRows k = head_rows(call_.args.k, call_.problem.k, block_.batch, head_kv);
  const ConstRows v = head_rows(call_.args.v, call_.problem.v, block_.batch, head_kv);
  for (Index col = begin; col < end; col += c.block_n) {
    throw_if_cancelled(call_.args.submission);
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

inline TileRows ForwardUnit::tile_rows(const ConstRows& rows, Index col_first, Index cols,
                                       Index dims, float* copy, Index ld) const {
  const Index stride_bytes = rows.row_stride * static_cast<Index>(sizeof(float));
  if (is_plain_f32(rows) && stride_bytes % kBadStrideBytes != 0) {
    return {static_cast<const float*>(rows.data) + col_first * rows.row_stride, rows.row_stride};
  }
  load_rows(rows, {col_first, cols, dims}, copy, ld, dims);
  return {copy, ld};
}

// The panel's part of a tile: the cols that at least one of its rows sees.
inline void ForwardUnit::visit_tile(Panel& panel, Index tile_first, Index tile_cols, TileRows k,
                                    TileRows v) {
  const Index col_first = std::max(tile_first, band_.col_begin(panel.row_first));
  const Index col_last = std::min(tile_first + tile_cols, band_.col_end(panel.row_last)) - 1;
  if (col_first > col_last) return;
  const Index cols = col_last - col_first + 1;
  const Shown shown = load_parts(panel, col_first, cols);
  if (shown == Shown::none) return;
  seen_ = shown == Shown::some ? tiles_.seen : nullptr;
  k.data += (col_first - tile_first) * k.row_stride;
  v.data += (col_first - tile_first) * v.row_stride;
  const bool in_band = band_.is_full(panel.row_first, panel.row_last, col_first, col_last);
  const bool full = in_band && seen_ == nullptr;
  if (!full) set_bounds(panel, col_first, cols);
  const float scale = scores(panel, cols, k, full);
  const bool rescale = raise(panel);
  weigh(panel, cols, scale);
  if (tiles_.kept != nullptr) drop(panel, cols);
  if (full || finite(v, cols)) {
    add_values(panel, cols, v, rescale);
  } else {
    add_visible_values(panel, cols, v);
  }
  panel.empty = false;
}

// Fills the tiles of the parts. How much of the tile does the mask show?
inline Shown ForwardUnit::load_parts(const Panel& panel, Index col_first, Index cols) {
  if (!call_.problem.parts.any()) return Shown::all;
  Shown shown = Shown::all;
  for_runs(panel, [&](const LaneRun& run) {
    const Shown of_run = parts_.look_at_mask(run, col_first, cols);
    shown = run.lane == 0 ? of_run : both(shown, of_run);
  });
  if (shown == Shown::none) return shown;
  const PartTiles tiles = shown == Shown::all ? tiles_.without_seen() : tiles_;
  for_runs(panel, [&](const LaneRun& run) { parts_.load(run, col_first, cols, tiles, width_); });
  return shown;
}

// What each lane sees of the tile: cols [seen_first, seen_end) counted from col_first.
inline void ForwardUnit::set_bounds(const Panel& panel, Index col_first, Index cols) {
  for (Index lane = 0; lane < width_; ++lane) {
    const Index row = row_of(std::min(panel.lane_first + lane, block_.lanes() - 1));
    seen_first_[lane] = static_cast<float>(clamp_index(band_.col_begin(row) - col_first, 0, cols));
    seen_end_[lane] = static_cast<float>(clamp_index(band_.col_end(row) - col_first, 0, cols));
  }
}

// S^T and, in the base-2 domain, its maxima. Returns what brings S^T into that domain: without mask
// or softcap this is one factor for all, and weigh() has it for nothing.
inline float ForwardUnit::scores(const Panel& panel, Index cols, const TileRows& k, bool full) {
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
  if (full && !capped_ && tiles_.added == nullptr && factors_.scale_log2 > 0.0F) {
    multiply_with_max(product, tile_max_);
    if (scale_maxima(used_lanes(panel))) return factors_.scale_log2;
  } else {
    multiply(product);
  }
  if (capped_) {
    full ? transform<CappedScore, true>(panel, cols) : transform<CappedScore, false>(panel, cols);
  } else {
    full ? transform<PlainScore, true>(panel, cols) : transform<PlainScore, false>(panel, cols);
  }
  return 1.0F;
}

// weigh() scales S and subtracts the maximum in one operation: the product is not rounded there,
// the maximum is, so the largest key's weight is 2^d, d the rounding of the maximum. No row notices
// as long as d is small. False if it is not, for any lane; then S is to be rounded as well.
inline bool ForwardUnit::scale_maxima(Index lanes) {
  constexpr float largest = 0x1p16F;  // d <= 2^-8
  bool small = true;
  for (Index lane = 0; lane < lanes; ++lane) {
    tile_max_[lane] *= factors_.scale_log2;
    small = small & (std::fabs(tile_max_[lane]) <= largest);
  }
  return small;
}

// S^T becomes values in the base-2 domain, -inf for what a row does not see.
template <class Score, bool kFull>
void ForwardUnit::transform(const Panel& panel, Index cols) {
  const Vec minus_infinity(kMinusInfinity);
  for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
    const Vec first = kFull ? minus_infinity : Vec::load(seen_first_ + lane);
    const Vec end = kFull ? minus_infinity : Vec::load(seen_end_ + lane);
    Vec highest = minus_infinity;
    for (Index j = 0; j < cols; ++j) {
      const Index at = j * width_ + lane;
      Vec value = value_log2<Score>(factors_, Vec::load(s_t_ + at));
      if (tiles_.added != nullptr) value = fma_(Vec::load(tiles_.added + at), Vec(kLog2E), value);
      if constexpr (!kFull) {
        if (seen_ != nullptr) value = where_set(Vec::load(seen_ + at), value, minus_infinity);
        value = where_inside(Vec(static_cast<float>(j)), first, end, value, minus_infinity);
      }
      value.store(s_t_ + at);
      highest = max_(highest, value);
    }
    highest.store(tile_max_ + lane);
  }
}

// Takes the tile's maxima into the running ones. Does O have to be multiplied by correction_?
inline bool ForwardUnit::raise(Panel& panel) {
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
inline void ForwardUnit::weigh(Panel& panel, Index cols, float scale) {
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

// What dropout keeps of the weights; their sums have all of them.
inline void ForwardUnit::drop(const Panel& panel, Index cols) {
  for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
    for (Index j = 0; j < cols; ++j) {
      float* const at = s_t_ + j * width_ + lane;
      (Vec::load(at) * Vec::load(tiles_.kept + j * width_ + lane)).store(at);
    }
  }
}

inline void ForwardUnit::add_values(Panel& panel, Index cols, const TileRows& v, bool rescale) {
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
inline void ForwardUnit::add_visible_values(Panel& panel, Index cols, const TileRows& v) {
  for (Index d = 0; d < call_.config.head_dim_v; ++d) {
    for (Index lane = 0; lane < used_lanes(panel); lane += kLanes) {
      float* const at = panel.o_t + d * width_ + lane;
      Vec sum = panel.empty ? Vec(0.0F) : Vec::load(at) * Vec::load(correction_ + lane);
      const Vec first = Vec::load(seen_first_ + lane);
      const Vec end = Vec::load(seen_end_ + lane);
      for (Index j = 0; j < cols; ++j) {
        const Vec more =
            fma_(Vec(v.data[j * v.row_stride + d]), Vec::load(s_t_ + j * width_ + lane), sum);
        const Vec next = where_inside(Vec(static_cast<float>(j)), first, end, more, sum);
        sum = seen_ == nullptr ? next : where_set(Vec::load(seen_ + j * width_ + lane), next, sum);
      }
      sum.store(at);
    }
  }
}

inline bool ForwardUnit::finite(const TileRows& v, Index cols) const {
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

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
