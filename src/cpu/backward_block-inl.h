// A block of query rows of one head, and its tiles of keys: what the workers of the backward pass
// have in common. Included once per instruction set.
#if defined(INGOT_CPU_BACKWARD_BLOCK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_BACKWARD_BLOCK_INL_H
#undef INGOT_CPU_BACKWARD_BLOCK_INL_H
#else
#define INGOT_CPU_BACKWARD_BLOCK_INL_H
#endif

#include <algorithm>
#include <limits>

#include "cpu/backward_tile-inl.h"
#include "cpu/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

class BackwardBlock {
 protected:
  BackwardBlock(const BackwardCall& call, const BackwardUnit& unit, float* scratch)
      : call_(call),
        problem_(call.problem),
        args_(call.args),
        l_(call.layout),
        unit_(unit),
        s_(call.layout, scratch),
        parts_(problem_, args_.parts, unit.batch),
        band_(parts_.band()),
        factors_(make_score_factors(band_.p)) {}

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

  /// Fills the tiles of the parts for the lanes of `t`. False: the mask hides all of the tile.
  bool load_parts(Index head, Index col, BackwardTile& t) {
    t.parts = problem_.parts.any();
    if (!t.parts) return true;
    const Index count = std::min(t.lane_end, rows_) - t.lane_first;
    const LaneRun run{t.lane_first, count, head, row_ + t.lane_first};
    const Shown shown = parts_.look_at_mask(run, col, t.cols);
    if (shown == Shown::none) return false;
    const PartTiles tiles = shown == Shown::all ? s_.parts.without_seen() : s_.parts;
    parts_.load(run, col, t.cols, tiles, l_.ld_m);
    t.seen = tiles.seen;
    return true;
  }

  /// What each row sees of the keys of the tile, counted from its first key.
  void find_visible(Index col, const BackwardTile& t) {
    for (Index m = t.lane_first; m < t.lane_end; ++m) {
      const bool dead = m >= rows_ || s_.lse[m] == infinity;
      const Index first = clamp_index(band_.col_begin(row_ + m) - col, 0, t.cols);
      const Index end = clamp_index(band_.col_end(row_ + m) - col, 0, t.cols);
      s_.seen_first[m] = static_cast<float>(first);
      s_.seen_end[m] = dead ? 0.0F : static_cast<float>(end);
    }
  }

  void load_transposed_queries(Index head) {
    load_transposed(head_rows(args_.q, problem_.q, unit_.batch, head),
                    {row_, rows_, problem_.head_dim}, 1.0F, s_.q_t, l_.ld_m);
  }

  void load(const ConstTensor& from, Dtype dtype, Index head, const Part& part, float* tile,
            Index ld) {
    load_rows(head_rows(from, dtype, unit_.batch, head), part, tile, ld, whole_vectors(part.dims));
  }

  /// In the base-2 domain. A row without weight gets +inf: exp2(value - inf) is its weight of 0.
  void load_lse(Index head) {
    std::fill_n(s_.lse, l_.block_m, infinity);
    std::fill_n(s_.lse_low, l_.block_m, 0.0F);
    if (call_.split_lse != nullptr) {
      const Index first = split_lse_index(problem_, unit_.batch, head, row_);
      std::copy_n(call_.split_lse + first, rows_, s_.lse);
      std::copy_n(call_.split_lse + split_lse_plane(problem_) + first, rows_, s_.lse_low);
    } else {
      for (Index m = 0; m < rows_; ++m) s_.lse[m] = lse_base_2(given_lse(head, m));
    }
    has_dead_row_ = has_low_lse_ = false;
    for (Index m = 0; m < rows_; ++m) {
      has_dead_row_ = has_dead_row_ || given_lse(head, m) == -infinity;
      has_low_lse_ = has_low_lse_ || s_.lse_low[m] != 0.0F;
    }
  }

  float given_lse(Index head, Index m) const {
    const ConstRows lse = head_rows(args_.lse, Dtype::f32, unit_.batch, head);
    return static_cast<const float*>(lse.data)[(row_ + m) * lse.row_stride];
  }

  static float lse_base_2(float natural) {
    constexpr float log2_e = 1.44269504088896340736F;
    return natural == -infinity ? infinity : natural * log2_e;
  }

  static constexpr float infinity = std::numeric_limits<float>::infinity();

  const BackwardCall& call_;
  const Problem& problem_;
  const BackwardArgs& args_;
  const BackwardLayout& l_;
  const BackwardUnit& unit_;
  const BackwardScratch s_;
  const PartReader parts_;
  const Band band_;
  const ScoreFactors factors_;
  Index row_ = 0, rows_ = 0;  // of the block
  bool has_dead_row_ = false, has_low_lse_ = false;
};

}  // namespace
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
