// The micro kernel: a tile of C in registers, a scalar of A broadcast against one or two vectors of
// B.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/tile.cpp"
#include <hwy/foreach_target.h>

#include <hwy/cache_control.h>

#include <utility>

#include "cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

// Rows of C that fit in registers beside two vectors of B and one scalar.
#if HWY_MAX_BYTES == 64
constexpr int kMaxRows = 14;
#elif HWY_TARGET == HWY_AVX2
constexpr int kMaxRows = 6;
#elif HWY_ARCH_ARM_A64
constexpr int kMaxRows = 12;
#else
constexpr int kMaxRows = 4;
#endif

// Rows of A are reached as base[group] + 0, 1 or 2 strides: few enough address registers for 14
// rows.
constexpr int kRowsPerBase = 3;

constexpr int kDepthsAhead = 8;
constexpr Index kLineFloats = 16;

template <int kRows, int kVecs>
HWY_INLINE void begin_tile(const Product& p, Vec (&acc)[kRows][kVecs]) {
  if (p.start == Start::zero) {
    HWY_UNROLL(16)
    for (int i = 0; i < kRows; ++i) {
      HWY_UNROLL(2) for (int v = 0; v < kVecs; ++v) acc[i][v] = Vec(0.0F);
    }
    return;
  }
  HWY_UNROLL(16)
  for (int i = 0; i < kRows; ++i) {
    HWY_UNROLL(2)
    for (int v = 0; v < kVecs; ++v) acc[i][v] = Vec::load(p.c + i * p.c_row + v * kLanes);
  }
  if (p.start == Start::add) return;
  HWY_UNROLL(2) for (int v = 0; v < kVecs; ++v) {
    const Vec factor = Vec::load(p.col_factor + v * kLanes);
    HWY_UNROLL(16)
    for (int i = 0; i < kRows; ++i) acc[i][v] = acc[i][v] * factor;
  }
}

// The largest of column v: a tree, whose latency hides behind the next tile's products.
template <int kRows, int kVecs>
HWY_INLINE Vec highest_of(const Vec (&acc)[kRows][kVecs], int v) {
  Vec part[(kRows + 1) / 2];
  HWY_UNROLL(8)
  for (int i = 0; i < (kRows + 1) / 2; ++i)
    part[i] = 2 * i + 1 < kRows ? max_(acc[2 * i][v], acc[2 * i + 1][v]) : acc[2 * i][v];
  Vec highest = part[0];
  HWY_UNROLL(8)
  for (int i = 1; i < (kRows + 1) / 2; ++i) highest = max_(highest, part[i]);
  return highest;
}

template <int kRows, int kVecs>
HWY_INLINE void end_tile(const Product& p, float* col_max, Vec (&acc)[kRows][kVecs]) {
  if (col_max != nullptr) {
    HWY_UNROLL(2)
    for (int v = 0; v < kVecs; ++v) {
      max_(Vec::load(col_max + v * kLanes), highest_of<kRows, kVecs>(acc, v))
          .store(col_max + v * kLanes);
    }
  }
  HWY_UNROLL(16)
  for (int i = 0; i < kRows; ++i) {
    HWY_UNROLL(2) for (int v = 0; v < kVecs; ++v) acc[i][v].store(p.c + i * p.c_row + v * kLanes);
  }
}

// kAlongRows: a_row is 1 and depths are a stride apart; otherwise the other way round.
template <int kRows, int kVecs, bool kAlongRows>
void tile(const Product& p, float* col_max) {
  Vec acc[kRows][kVecs];
  begin_tile<kRows, kVecs>(p, acc);
  const Index stride = kAlongRows ? p.a_depth : p.a_row;
  constexpr int kBases = (kRows + kRowsPerBase - 1) / kRowsPerBase;
  const float* HWY_RESTRICT base[kBases];
  HWY_UNROLL(8) for (int g = 0; g < kBases; ++g) base[g] = p.a + g * kRowsPerBase * stride;
  const float* HWY_RESTRICT a = p.a;
  const float* HWY_RESTRICT b = p.b;
  const Index b_depth = p.b_depth;
  // What will be read next: rows of A further down, or, where rows of A follow each other, the next
  // tile's.
  const float* next = p.a + (kAlongRows ? kDepthsAhead : kRows) * stride;
  const Index next_step = kAlongRows ? stride : stride == p.depth ? kLineFloats : 0;
  for (Index k = p.depth; k > 0; --k) {
    Vec row_of_b[kVecs];
    HWY_UNROLL(2) for (int v = 0; v < kVecs; ++v) row_of_b[v] = Vec::load(b + v * kLanes);
    HWY_UNROLL(16)
    for (int i = 0; i < kRows; ++i) {
      const Vec scalar(kAlongRows ? a[i] : base[i / kRowsPerBase][(i % kRowsPerBase) * stride]);
      HWY_UNROLL(2)
      for (int v = 0; v < kVecs; ++v) acc[i][v] = fma_(scalar, row_of_b[v], acc[i][v]);
    }
    hwy::Prefetch(next);
    next += next_step;
    b += b_depth;
    if (kAlongRows) {
      a += stride;
    } else {
      HWY_UNROLL(8) for (int g = 0; g < kBases; ++g)++ base[g];
    }
  }
  end_tile<kRows, kVecs>(p, col_max, acc);
}

using Kernel = void (*)(const Product&, float*);

template <int kVecs, bool kAlongRows, int... kIndex>
HWY_INLINE Kernel pick_from(Index rows, std::integer_sequence<int, kIndex...>) {
  static constexpr Kernel kernels[] = {tile<kIndex + 1, kVecs, kAlongRows>...};
  return kernels[rows - 1];
}

HWY_INLINE Kernel pick(Index rows, Index vecs, bool along_rows) {
  const std::make_integer_sequence<int, kMaxRows> all;
  if (along_rows) {
    return vecs == 1 ? pick_from<1, true>(rows, all) : pick_from<2, true>(rows, all);
  }
  return vecs == 1 ? pick_from<1, false>(rows, all) : pick_from<2, false>(rows, all);
}

// All rows of one or two vectors of cols, in tiles of nearly equal height: no tile is much lower
// than the others.
HWY_INLINE void multiply_panel(Product p, float* col_max, Index vecs) {
  const bool along_rows = p.a_row == 1;
  const float* const a = p.a;
  float* const c = p.c;
  const Index tiles = (p.rows + kMaxRows - 1) / kMaxRows;
  const Index low = p.rows / tiles;
  const Index higher = p.rows - low * tiles;
  const Kernel kernel_low = pick(low, vecs, along_rows);
  const Kernel kernel_high = higher > 0 ? pick(low + 1, vecs, along_rows) : kernel_low;
  Index row = 0;
  for (Index t = 0; t < tiles; ++t) {
    p.a = a + row * p.a_row;
    p.c = c + row * p.c_row;
    (t < higher ? kernel_high : kernel_low)(p, col_max);
    row += t < higher ? low + 1 : low;
  }
}

void multiply_panels(Product p, float* col_max) {
  if (p.rows <= 0) return;
  for (Index col = 0; col < p.cols;) {
    const Index vecs = p.cols - col >= kTileVecs * kLanes ? kTileVecs : 1;
    multiply_panel(p, col_max, vecs);
    const Index step = vecs * kLanes;
    col += step;
    p.b += step;
    p.c += step;
    if (p.col_factor != nullptr) p.col_factor += step;
    if (col_max != nullptr) col_max += step;
  }
}

}  // namespace

void multiply(const Product& product) { multiply_panels(product, nullptr); }

void multiply_with_max(const Product& product, float* col_max) {
  multiply_panels(product, col_max);
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
