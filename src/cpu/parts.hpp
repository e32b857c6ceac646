// What the parts of a problem need of the CPU's tiles.
#pragma once

#include "core/problem.hpp"

namespace ingot {

/// Tiles beside the scores, as large as theirs: what is added to them (ALiBi, bias), what the mask
/// shows, what dropout keeps. Offsets in floats; -1: the problem needs none.
struct PartTilesLayout {
  std::int64_t added = -1, seen = -1, kept = -1;
};

/// Places the tiles of `floats` each; take(floats) returns an offset.
template <class Take>
PartTilesLayout make_part_tiles(const Parts& parts, std::int64_t floats, Take&& take) {
  PartTilesLayout l;
  if (parts.alibi || parts.bias) l.added = take(floats);
  if (parts.mask) l.seen = take(floats);
  if (parts.dropout > 0.0F) l.kept = take(floats);
  return l;
}

}  // namespace ingot
