// Cooperative copies of a slab, rows x cols of T, from device to threadgroup memory: 16 bytes an
// access where alignment allows, through registers, so that a slab is on its way while the one
// before it is multiplied. fetch() starts, commit() ends; a barrier makes it visible.
#pragma once
#include "metal/kernels/tile.h"

namespace ingot {

template <class T, int rows, int cols, int threads>
struct Slab {
  static constexpr constant int piece = 16 / int(sizeof(T));  // elements of an access
  static constexpr constant int lead = cols + piece;          // of a row: neighbours in other banks
  static constexpr constant int bytes = rows * lead * int(sizeof(T));
  static constexpr constant int row_pieces = cols / piece;
  static constexpr constant int pieces = rows * row_pieces;
  static constexpr constant int per_thread = (pieces + threads - 1) / threads;
  static_assert(cols % piece == 0, "a slab has whole pieces");

  /// What the slab looks like in threadgroup memory.
  using Staged = Rows<T, const threadgroup T*, int, piece>;

  Pack<T, piece> held[per_thread];

  /// X[row + r][col + c]; beyond the extent of X: zero.
  template <class X>
  void fetch(X x, int member, int row, int col, Extent extent) {
    INGOT_UNROLL for (int i = 0; i < per_thread; ++i) {
      const int index = member + i * threads;
      const int r = row + index / row_pieces, c = col + index % row_pieces * piece;
      held[i] = zero_pack<T, piece>();
      if (r >= extent.rows || (pieces % threads != 0 && index >= pieces)) continue;
      if (c + piece <= extent.cols) {
        held[i] = x.template get<piece>(r, c);
      } else {
        held[i] = x.template get_below<piece>(r, c, extent.cols);
      }
    }
  }

  void commit(threadgroup void* slot, int member) const {
    threadgroup T* to = static_cast<threadgroup T*>(slot);
    INGOT_UNROLL for (int i = 0; i < per_thread; ++i) {
      const int index = member + i * threads;
      if (pieces % threads != 0 && index >= pieces) continue;
      threadgroup T* at = to + index / row_pieces * lead + index % row_pieces * piece;
      *packs<Pack<T, piece>>(at) = held[i];
    }
  }

  static Staged staged(const threadgroup void* slot) {
    return Staged{static_cast<const threadgroup T*>(slot), lead, 1, 0, 0};
  }
};

}  // namespace ingot
