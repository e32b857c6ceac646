// The parts of the score as passes over a tile: what ALiBi and bias add, what the mask shows, what
// dropout keeps. A tile lies in the L1 cache, so that a pass costs little beside the products, and
// a new part is a pass here instead of a template argument of every kernel.
#if defined(INGOT_CPU_PARTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_PARTS_INL_H
#undef INGOT_CPU_PARTS_INL_H
#else
#define INGOT_CPU_PARTS_INL_H
#endif

#include "cpu/copy-inl.h"
#include "cpu/parts.hpp"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

inline constexpr float kLog2E = 1.44269504088896340736F;

/// Query rows of one head next to each other, from lane `lane` of a tile on.
struct LaneRun {
  Index lane, count, head, row;
};

/// The tiles, [cols][lanes] or [rows][cols]; null: nothing is added, hidden or dropped.
struct PartTiles {
  float* added = nullptr;  ///< to the score
  float* seen = nullptr;   ///< 0: the mask hides the pair
  float* kept = nullptr;   ///< factor of the weight

  PartTiles() = default;
  PartTiles(const PartTilesLayout& l, float* scratch)
      : added(l.added < 0 ? nullptr : scratch + l.added),
        seen(l.seen < 0 ? nullptr : scratch + l.seen),
        kept(l.kept < 0 ? nullptr : scratch + l.kept) {}

  PartTiles without_seen() const {
    PartTiles t = *this;
    t.seen = nullptr;
    return t;
  }
  PartTiles from(Index offset) const {
    PartTiles t;
    if (added != nullptr) t.added = added + offset;
    if (seen != nullptr) t.seen = seen + offset;
    if (kept != nullptr) t.kept = kept + offset;
    return t;
  }
};

/// How much of a tile the mask shows.
enum class Shown : std::uint8_t { none, some, all };

/// Of two parts of a tile together.
inline Shown both(Shown a, Shown b) { return a == b ? a : Shown::some; }

/// The inputs of the parts for one batch entry.
class PartReader {
 public:
  PartReader(const Problem& problem, const PartInputs& inputs, Index batch);

  Band band() const;

  /// The logit without a value of each row of a head; -inf: there is none. Natural, and base 2.
  float natural_sink(Index head) const;
  float sink(Index head) const;

  /// How many of the pairs of a run and keys [col, col + cols) does the mask show?
  Shown look_at_mask(const LaneRun& run, Index col, Index cols) const;

  /// Fills the tiles, [cols][ld], for keys [col, col + cols).
  void load(const LaneRun& run, Index col, Index cols, const PartTiles& tiles, Index ld) const;

  /// Fills a row of each tile for one query row: dims are keys.
  void load_row(Index head, Index row, Index col, Index cols, const PartTiles& tiles) const;

 private:
  template <bool kAdd>
  void add_alibi(const LaneRun& run, Index col, Index cols, float* tile, Index ld) const;
  unsigned counter_of(Index head) const {
    return static_cast<unsigned>(batch_ * p_.num_heads + head);
  }
  ConstRows pairs_of(const ConstTensor& tensor, Dtype dtype, Index head, Index col) const;
  float slope(Index head) const;
  Index position(Index row) const { return row + shift_; }

  const Problem& p_;
  const PartInputs& inputs_;
  const Index batch_, shift_;
  ConstTensor bias_;
  const DropoutParams dropout_;
};

/// Where a tile of dropout's factors lies: the generator's counter of the head, its first query row
/// and its keys.
struct DropoutPlace {
  unsigned head;
  Index row, col, cols;
};

/// tile[j * ld + r] = factor of the weight of row `row + r` and key `col + j`, r < count.
void load_kept(const DropoutParams& params, DropoutPlace place, Index count, float* tile, Index ld);

/// to[j] likewise for the one row.
void load_kept_row(const DropoutParams& params, const DropoutPlace& place, float* to);

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
