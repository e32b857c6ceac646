// 8x8 tiles in registers: load, store, multiply, and what rows have in common. A thread of a
// simdgroup holds two neighbours of each tile, at Lane{row, col} and (row, col + 1).
//
// Panels. `width` tiles side by side are filled by one access of every thread: column n of tile j
// of a panel that starts at memory column `base` is memory column base + width * n + j. Sums over
// columns do not see the order, and stores undo it, so all operands share it.
#pragma once
#include "metal/kernels/dialect.h"
#include "metal/kernels/params.h"

#include "algorithm/params.h"

namespace ingot {

template <class T>
using Tile = metal::simdgroup_matrix<T, 8, 8>;

struct Lane {
  short row, col;
};

constexpr int tiles_of(int columns) { return (columns + 7) / 8; }
constexpr int smaller(int a, int b) { return a < b ? a : b; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

inline Lane lane_of(ushort lane) {
  const short quad = short(lane / 4);
  return Lane{short((quad & 4) + lane / 2 % 4), short((quad & 2) * 2 + lane % 2 * 2)};
}

// ---- numbers in memory and in registers; ushort holds the bits of a bfloat ----

template <class R, class T>
inline R from_memory(T x) {
  if constexpr (metal::is_same_v<T, ushort>) {
    return R(to_float(x));
  } else {
    return R(x);
  }
}

/// Round to nearest even; a NaN stays one.
template <class T>
inline T to_memory(float x) {
  if constexpr (metal::is_same_v<T, ushort>) {
    const uint bits = as_type<uint>(x);
    const uint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return ushort((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
  } else {
    return T(x);
  }
}

// ---- rows in memory ----

/// n numbers that one access moves.
template <class T, int n>
struct alignas(n * sizeof(T)) Pack {
  T of[n];
};

template <class P, class T>
inline const device P* packs(const device T* x) {
  return reinterpret_cast<const device P*>(x);
}
template <class P, class T>
inline const threadgroup P* packs(const threadgroup T* x) {
  return reinterpret_cast<const threadgroup P*>(x);
}
template <class P, class T>
inline device P* packs(device T* x) {
  return reinterpret_cast<device P*>(x);
}
template <class P, class T>
inline threadgroup P* packs(threadgroup T* x) {
  return reinterpret_cast<threadgroup P*>(x);
}

/// Rows of T, each aligned to `unit` elements (1: to one element). Pointer: (const) device or
/// threadgroup T*; Step: type of a stride. strided: neighbours are col_step apart. packed: rows
/// [0, head_rows) are those of one head, the next head_rows those of the next, head_step further.
template <class T, class Pointer, class Step, int unit, bool strided = false, bool packed = false>
struct Rows {
  Pointer data;
  Step row_step;
  Step col_step;
  Step head_step;
  int head_rows;

  using Element = T;
  static constexpr constant int alignment = strided ? 1 : unit;

  Pointer at(int row, int col) const {
    const Step across = strided ? Step(col) * col_step : Step(col);
    if constexpr (packed) {
      return data + Step(row / head_rows) * head_step + Step(row % head_rows) * row_step + across;
    } else {
      return data + Step(row) * row_step + across;
    }
  }
  /// The same rows from (row, col) on.
  Rows from(Index row, int col) const {
    const Step across = strided ? Step(col) * col_step : Step(col);
    return Rows{data + row * row_step + across, row_step, col_step, head_step, head_rows};
  }

  /// n elements from (row, col); col is a multiple of n.
  template <int n>
  Pack<T, n> get(int row, int col) const {
    Pack<T, n> pack;
    constexpr int step = alignment < n ? alignment : n;
    if constexpr (step == n) {
      pack = *packs<Pack<T, n>>(at(row, col));
    } else {
      INGOT_UNROLL for (int i = 0; i < n; i += step) {
        const Pack<T, step> part = *packs<Pack<T, step>>(at(row, col + i));
        INGOT_UNROLL for (int k = 0; k < step; ++k) pack.of[i + k] = part.of[k];
      }
    }
    return pack;
  }

  template <int n>
  void put(int row, int col, Pack<T, n> pack) const {
    constexpr int step = alignment < n ? alignment : n;
    INGOT_UNROLL for (int i = 0; i < n; i += step) {
      Pack<T, step> part;
      INGOT_UNROLL for (int k = 0; k < step; ++k) part.of[k] = pack.of[i + k];
      *packs<Pack<T, step>>(at(row, col + i)) = part;
    }
  }

  /// The same where columns from `cols` on are not there and count as zero.
  template <int n>
  Pack<T, n> get_below(int row, int col, int cols) const {
    Pack<T, n> pack;
    INGOT_UNROLL for (int i = 0; i < n; ++i) {
      pack.of[i] = col + i < cols ? *at(row, col + i) : T(0);
    }
    return pack;
  }
  template <int n>
  void put_below(int row, int col, int cols, Pack<T, n> pack) const {
    INGOT_UNROLL for (int i = 0; i < n; ++i) {
      if (col + i < cols) *at(row, col + i) = pack.of[i];
    }
  }
};

constexpr int unit_of(int unit_bytes, int element_bytes) {
  return larger(unit_bytes / element_bytes, 1);
}

/// Rows of a tensor in device memory; T is const in inputs.
template <class Config, class T, bool strided, bool packed = false>
using DeviceRows = Rows<metal::remove_const_t<T>, device T*, Index,
                        unit_of(Config::unit_bytes, int(sizeof(T))), strided, packed>;

/// The rows of one head; packed: of the heads from `head` on, head_rows each.
template <class X, class Pointer>
inline X rows_of(Pointer data, Strides strides, Index batch, Index head, int head_rows = 1) {
  return X{data + batch * strides.batch + head * strides.head, strides.row, strides.col,
           strides.head, head_rows};
}

template <class T, int n>
inline Pack<T, n> zero_pack() {
  Pack<T, n> pack;
  INGOT_UNROLL for (int i = 0; i < n; ++i) pack.of[i] = T(0);
  return pack;
}

// ---- tiles ----

template <class T>
inline void set_zero(thread Tile<T>& tile) {
  tile.thread_elements()[0] = T(0);
  tile.thread_elements()[1] = T(0);
}

/// Which part of a panel is there: rows below `rows`, columns below `cols`; what is not is zero.
struct Extent {
  int rows, cols;
};

/// Tile (row r, column n) = X[row + r][base + n]: a left-hand operand whose columns are summed
/// over, or a right-hand one whose rows are. row_edge, col_edge: look at the extent.
template <int width, bool row_edge, bool col_edge, class R, class X>
inline void load_rows(thread Tile<R>* tiles, X x, Lane lane, int row, int base, Extent extent) {
  constexpr int n = 2 * width;
  Pack<typename X::Element, n> pack = zero_pack<typename X::Element, n>();
  const int r = row + lane.row, col = base + width * lane.col;
  if (!row_edge || r < extent.rows) {
    if constexpr (col_edge) {
      pack = x.template get_below<n>(r, col, extent.cols);
    } else {
      pack = x.template get<n>(r, col);
    }
  }
  INGOT_UNROLL for (int j = 0; j < width; ++j) {
    tiles[j].thread_elements()[0] = from_memory<R>(pack.of[j]);
    tiles[j].thread_elements()[1] = from_memory<R>(pack.of[width + j]);
  }
}

/// Tile (row r, column n) = X[row + n][base + r]: the transpose, a right-hand operand.
template <int width, bool row_edge, bool col_edge, class R, class X>
inline void load_transposed(thread Tile<R>* tiles, X x, Lane lane, int row, int base,
                            Extent extent) {
  using T = typename X::Element;
  INGOT_UNROLL for (int e = 0; e < 2; ++e) {
    Pack<T, width> pack = zero_pack<T, width>();
    const int r = row + lane.col + e, col = base + width * lane.row;
    if (!row_edge || r < extent.rows) {
      if constexpr (col_edge) {
        pack = x.template get_below<width>(r, col, extent.cols);
      } else {
        pack = x.template get<width>(r, col);
      }
    }
    INGOT_UNROLL for (int j = 0; j < width; ++j) {
      tiles[j].thread_elements()[e] = from_memory<R>(pack.of[j]);
    }
  }
}

/// Undoes load_rows; rows and columns outside of the extent are left alone.
template <int width, bool col_edge, class R, class X>
inline void store_rows(const thread Tile<R>* tiles, X x, Lane lane, int row, int base, float factor,
                       Extent extent) {
  using T = typename X::Element;
  constexpr int n = 2 * width;
  Pack<T, n> pack;
  INGOT_UNROLL for (int j = 0; j < width; ++j) {
    pack.of[j] = to_memory<T>(float(tiles[j].thread_elements()[0]) * factor);
    pack.of[width + j] = to_memory<T>(float(tiles[j].thread_elements()[1]) * factor);
  }
  const int r = row + lane.row, col = base + width * lane.col;
  if (r >= extent.rows) return;
  if constexpr (col_edge) {
    x.template put_below<n>(r, col, extent.cols, pack);
  } else {
    x.template put<n>(r, col, pack);
  }
}

/// C += A B.
template <class C, class A, class B>
inline void multiply_add(thread Tile<C>& c, thread Tile<A>& a, thread Tile<B>& b) {
  metal::simdgroup_multiply_accumulate(c, a, b, c);
}

// ---- rows of tiles: the four threads of a row differ in bits 0 and 3 ----

inline float row_max(float x) {
  x = metal::max(x, metal::simd_shuffle_xor(x, 1));
  return metal::max(x, metal::simd_shuffle_xor(x, 8));
}
inline float row_sum(float x) {
  x += metal::simd_shuffle_xor(x, 1);
  return x + metal::simd_shuffle_xor(x, 8);
}

// ---- panels of `dim` columns ----

/// Calls step.run<width, col_edge>(tile) for every panel: as many of `panel` tiles as there are,
/// then narrower ones; col_edge marks the last tile where dim is no multiple of 8. rolled: the wide
/// ones in a loop, where no register array is indexed by `tile`.
template <int dim, int panel, bool rolled, class Step>
inline void for_panels(thread Step& step) {
  constexpr int full = dim / 8;
  constexpr int wide = full / panel * panel;
  if constexpr (rolled) {
    _Pragma("clang loop unroll(disable)") for (int t = 0; t < wide; t += panel) {
      step.template run<panel, false>(t);
    }
  } else {
    INGOT_UNROLL for (int t = 0; t < wide; t += panel) step.template run<panel, false>(t);
  }
  constexpr int rest = full - wide;
  if constexpr ((rest & 2) != 0) step.template run<2, false>(wide);
  if constexpr ((rest & 1) != 0) step.template run<1, false>(full - 1);
  if constexpr (dim % 8 != 0) step.template run<1, true>(full);
}

}  // namespace ingot
