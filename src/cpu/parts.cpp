// Tiles of what the parts of a problem add, show and keep, for every instruction set.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/parts.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <limits>

#include "cpu/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
PartReader::PartReader(const Problem& problem, const PartInputs& inputs, Index batch)
    : p_(problem),
      inputs_(inputs),
      batch_(batch),
      shift_(position_shift(static_cast<int>(problem.causal), problem.seqlen_q, problem.seqlen_k)),
      bias_(inputs.bias),
      dropout_(
          make_dropout_params(problem.parts.dropout, inputs.dropout_seed, inputs.dropout_offset)) {
  for (std::size_t i = 0; i < 4; ++i) {
    if (problem.parts.bias_shape[i] == 1) bias_.stride[i] = 0;
  }
}

Band PartReader::band() const {
  Band band{make_score_params(p_.scale, p_.softcap, p_.seqlen_q, p_.seqlen_k,
                              static_cast<int>(p_.causal), p_.window_left, p_.window_right),
            0};
  if (p_.parts.prefix) {
    const auto* const lengths = static_cast<const std::int32_t*>(inputs_.prefix_len.data);
    band.prefix = clamp_index(lengths[batch_ * inputs_.prefix_len.stride[0]], 0, p_.seqlen_k);
  }
  return band;
}

float PartReader::natural_sink(Index head) const {
  if (!p_.parts.sinks) return -std::numeric_limits<float>::infinity();
  const ConstRows sinks = head_rows(inputs_.sinks, p_.parts.sinks_dtype, 0, head);
  float sink = 0;
  load_rows(sinks, {0, 1, 1}, &sink, 1, 1);
  return sink;
}

float PartReader::sink(Index head) const { return natural_sink(head) * kLog2E; }

float PartReader::slope(Index head) const {
  const Strides& stride = inputs_.alibi_slopes.stride;
  return static_cast<const float*>(
      inputs_.alibi_slopes.data)[batch_ * stride[0] + head * stride[1]];
}

/// Pairs of rows and the keys from `col` on, as rows and dims.
ConstRows PartReader::pairs_of(const ConstTensor& tensor, Dtype dtype, Index head,
                               Index col) const {
  ConstRows rows = head_rows(tensor, dtype, batch_, head);
  rows.data = static_cast<const char*>(rows.data) + col * rows.dim_stride * size_bytes(dtype);
  return rows;
}

/// kAdd: to what the tile holds, which nothing has written otherwise.
template <bool kAdd>
void PartReader::add_alibi(const LaneRun& run, Index col, Index cols, float* tile, Index ld) const {
  const Vec minus_slope(-slope(run.head));
  for (Index lane = 0; lane < run.count; lane += kLanes) {
    const Vec first(static_cast<float>(col - position(run.row + lane)));
    const Vec start = first - counted_from(0.0F);  // rows lie in the lanes
    const Index count = std::min(kLanes, run.count - lane);
    for (Index j = 0; j < cols; ++j) {
      float* const at = tile + j * ld + lane;
      const Vec gain = alibi_penalty(minus_slope, start + Vec(static_cast<float>(j)));
      if (count == kLanes) {
        (kAdd ? Vec::load(at) + gain : gain).store(at);
      } else {
        alignas(64) float lanes[kLanes];
        gain.store(lanes);
        for (Index i = 0; i < count; ++i) at[i] = kAdd ? at[i] + lanes[i] : lanes[i];
      }
    }
  }
}

void PartReader::load(const LaneRun& run, Index col, Index cols, const PartTiles& tiles,
                      Index ld) const {
  const Part part{run.row, run.count, cols};
  if (tiles.added != nullptr) {
    if (p_.parts.bias) {
      load_lanes(pairs_of(bias_, p_.parts.bias_dtype, run.head, col), part, 1.0F,
                 tiles.added + run.lane, ld);
    }
    if (p_.parts.alibi) {
      p_.parts.bias ? add_alibi<true>(run, col, cols, tiles.added + run.lane, ld)
                    : add_alibi<false>(run, col, cols, tiles.added + run.lane, ld);
    }
  }
  if (tiles.seen != nullptr) {
    load_lanes(pairs_of(inputs_.mask, Dtype::u8, run.head, col), part, 1.0F, tiles.seen + run.lane,
               ld);
  }
  if (tiles.kept != nullptr) {
    load_kept(dropout_, {counter_of(run.head), run.row, col, cols}, run.count,
              tiles.kept + run.lane, ld);
  }
}

void PartReader::load_row(Index head, Index row, Index col, Index cols,
                          const PartTiles& tiles) const {
  const Part part{row, 1, cols};
  if (tiles.added != nullptr) {
    std::fill_n(tiles.added, cols, 0.0F);
    if (p_.parts.bias) {
      load_rows(pairs_of(bias_, p_.parts.bias_dtype, head, col), part, tiles.added, cols, cols);
    }
    if (p_.parts.alibi) {
      const float of_head = slope(head);
      const auto first = static_cast<float>(col - position(row));
      for (Index j = 0; j < cols; ++j) {
        tiles.added[j] -= alibi_penalty(of_head, first + static_cast<float>(j));
      }
    }
  }
  if (tiles.seen != nullptr) {
    load_rows(pairs_of(inputs_.mask, Dtype::u8, head, col), part, tiles.seen, cols, cols);
  }
  if (tiles.kept != nullptr) {
    load_kept_row(dropout_, {counter_of(head), row, col, cols}, tiles.kept);
  }
}

Shown PartReader::look_at_mask(const LaneRun& run, Index col, Index cols) const {
  if (!p_.parts.mask) return Shown::all;
  const ConstRows rows = pairs_of(inputs_.mask, Dtype::u8, run.head, col);
  unsigned any = 0, hidden = 0;
  for (Index r = 0; r < run.count; ++r) {
    const auto* const row =
        static_cast<const std::uint8_t*>(rows.data) + (run.row + r) * rows.row_stride;
    if (rows.dim_stride == 1) {
      for (Index j = 0; j < cols; ++j) {
        any |= row[j];
        hidden |= row[j] == 0 ? 1U : 0U;
      }
    } else {
      for (Index j = 0; j < cols; ++j) {
        any |= row[j * rows.dim_stride];
        hidden |= row[j * rows.dim_stride] == 0 ? 1U : 0U;
      }
    }
    if (any != 0 && hidden != 0) return Shown::some;
  }
  return hidden == 0 ? Shown::all : Shown::none;
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
