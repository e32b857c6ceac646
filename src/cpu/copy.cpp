// Conversion and transposition between tensors and f32 tiles.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/copy.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <type_traits>

#include "cpu/copy-inl.h"
#include "cpu/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE Vec load_some(const T* p, Index count) {
  T part[kLanes] = {};
  std::copy_n(p, count, part);
  return load_vec(part);
}
template <class T>
HWY_INLINE void store_some(Vec x, T* p, Index count) {
  T part[kLanes];
  store_vec(x, part);
  std::copy_n(part, count, p);
}

template <class T>
HWY_INLINE void load_row(const T* from, Index dim_stride, Index dims, float* to) {
  if (dim_stride == 1) {
    Index d = 0;
    for (; d + kLanes <= dims; d += kLanes) load_vec(from + d).store(to + d);
    if (d < dims) {
      alignas(64) float tail[kLanes];
      load_some(from + d, dims - d).store(tail);
      std::copy_n(tail, dims - d, to + d);
    }
    return;
  }
  for (Index d = 0; d < dims; d += kLanes) {
    T part[kLanes] = {};
    const Index count = std::min(kLanes, dims - d);
    for (Index i = 0; i < count; ++i) part[i] = from[(d + i) * dim_stride];
    alignas(64) float lanes[kLanes];
    load_vec(part).store(lanes);
    std::copy_n(lanes, count, to + d);
  }
}

template <class T>
HWY_INLINE void store_row(const float* from, T* to, Index dim_stride, Index dims) {
  Index d = 0;
  if (dim_stride == 1) {
    for (; d + kLanes <= dims; d += kLanes) store_vec(Vec::load(from + d), to + d);
  }
  for (; d < dims; d += kLanes) {
    const Index count = std::min(kLanes, dims - d);
    T part[kLanes];
    store_vec(load_some(from + d, count), part);
    for (Index i = 0; i < count; ++i) to[(d + i) * dim_stride] = part[i];
  }
}

// Side of the squares that are transposed in registers.
constexpr Index kSquare = HWY_TARGET == HWY_SCALAR ? 1 : 4;

// to[d * to_row + r] = from[r * from_row + d] for one square.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void transpose_square(const float* from, Index, float* to, Index) { *to = *from; }
#else
HWY_INLINE void transpose_square(const float* from, Index from_row, float* to, Index to_row) {
  const hn::FixedTag<float, 4> four;
  const auto r0 = hn::LoadU(four, from);
  const auto r1 = hn::LoadU(four, from + from_row);
  const auto r2 = hn::LoadU(four, from + 2 * from_row);
  const auto r3 = hn::LoadU(four, from + 3 * from_row);
  const auto low02 = hn::InterleaveLower(four, r0, r2);
  const auto low13 = hn::InterleaveLower(four, r1, r3);
  const auto high02 = hn::InterleaveUpper(four, r0, r2);
  const auto high13 = hn::InterleaveUpper(four, r1, r3);
  hn::StoreU(hn::InterleaveLower(four, low02, low13), four, to);
  hn::StoreU(hn::InterleaveUpper(four, low02, low13), four, to + to_row);
  hn::StoreU(hn::InterleaveLower(four, high02, high13), four, to + 2 * to_row);
  hn::StoreU(hn::InterleaveUpper(four, high02, high13), four, to + 3 * to_row);
}
#endif

HWY_INLINE void transpose(const float* from, Index from_row, float* to, Index to_row, Index rows,
                          Index cols) {
  const Index whole_rows = rows / kSquare * kSquare;
  const Index whole_cols = cols / kSquare * kSquare;
  for (Index c = 0; c < whole_cols; c += kSquare) {
    for (Index r = 0; r < whole_rows; r += kSquare) {
      transpose_square(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
    }
  }
  for (Index c = 0; c < cols; ++c) {
    for (Index r = c < whole_cols ? whole_rows : 0; r < rows; ++r)
      to[c * to_row + r] = from[r * from_row + c];
  }
}

HWY_INLINE void scale_line(float* line, Index count, float factor) {
  for (Index i = 0; i < count; ++i) line[i] *= factor;
}

// Transposition goes through a strip of this many dims of kLanes rows, which stays in the first
// cache level.
constexpr Index kStripDims = 64;

template <class T>
void load_rows_of(const ConstRows& from, const Part& part, float* tile, Index tile_row,
                  Index padded_dims) {
  const T* row = static_cast<const T*>(from.data) + part.row * from.row_stride;
  for (Index r = 0; r < part.rows; ++r, row += from.row_stride, tile += tile_row) {
    load_row(row, from.dim_stride, part.dims, tile);
    std::fill(tile + part.dims, tile + padded_dims, 0.0F);
  }
}

template <class T>
void load_lanes_of(const ConstRows& from, const Part& part, float scale, float* tile,
                   Index tile_dim) {
  alignas(64) float strip[kLanes * kStripDims];
  const T* const first = static_cast<const T*>(from.data) + part.row * from.row_stride;
  for (Index r = 0; r < part.rows; r += kLanes) {
    const Index rows = std::min(kLanes, part.rows - r);
    for (Index d = 0; d < part.dims; d += kStripDims) {
      const Index dims = std::min(kStripDims, part.dims - d);
      if constexpr (std::is_same_v<T, float>) {
        if (from.dim_stride == 1 && scale == 1.0F) {
          transpose(first + r * from.row_stride + d, from.row_stride, tile + d * tile_dim + r,
                    tile_dim, rows, dims);
          continue;
        }
      }
      for (Index i = 0; i < rows; ++i) {
        float* const line = strip + i * kStripDims;
        load_row(first + (r + i) * from.row_stride + d * from.dim_stride, from.dim_stride, dims,
                 line);
        if (scale != 1.0F) scale_line(line, dims, scale);
      }
      transpose(strip, kStripDims, tile + d * tile_dim + r, tile_dim, rows, dims);
    }
  }
}

template <class T>
void store_rows_of(const float* tile, Index tile_row, const Rows& to, const Part& part) {
  T* row = static_cast<T*>(to.data) + part.row * to.row_stride;
  for (Index r = 0; r < part.rows; ++r, row += to.row_stride, tile += tile_row) {
    store_row(tile, row, to.dim_stride, part.dims);
  }
}

template <class T>
void store_transposed_of(const float* tile, Index tile_dim, const float* factor, const Rows& to,
                         const Part& part) {
  alignas(64) float strip[kLanes * kStripDims];
  T* const first = static_cast<T*>(to.data) + part.row * to.row_stride;
  for (Index r = 0; r < part.rows; r += kLanes) {
    const Index rows = std::min(kLanes, part.rows - r);
    for (Index d = 0; d < part.dims; d += kStripDims) {
      const Index dims = std::min(kStripDims, part.dims - d);
      transpose(tile + d * tile_dim + r, tile_dim, strip, kStripDims, dims, rows);
      for (Index i = 0; i < rows; ++i) {
        float* const line = strip + i * kStripDims;
        scale_line(line, dims, factor[r + i]);
        store_row(line, first + (r + i) * to.row_stride + d * to.dim_stride, to.dim_stride, dims);
      }
    }
  }
}

}  // namespace

void load_rows(const ConstRows& from, const Part& part, float* tile, Index tile_row,
               Index padded_dims) {
  switch (from.dtype) {
    case Dtype::f16:
      return load_rows_of<F16>(from, part, tile, tile_row, padded_dims);
    case Dtype::bf16:
      return load_rows_of<Bf16>(from, part, tile, tile_row, padded_dims);
    case Dtype::u8:
      return load_rows_of<std::uint8_t>(from, part, tile, tile_row, padded_dims);
    default:
      return load_rows_of<float>(from, part, tile, tile_row, padded_dims);
  }
}

void load_lanes(const ConstRows& from, const Part& part, float scale, float* tile, Index tile_dim) {
  switch (from.dtype) {
    case Dtype::f16:
      return load_lanes_of<F16>(from, part, scale, tile, tile_dim);
    case Dtype::bf16:
      return load_lanes_of<Bf16>(from, part, scale, tile, tile_dim);
    case Dtype::u8:
      return load_lanes_of<std::uint8_t>(from, part, scale, tile, tile_dim);
    default:
      return load_lanes_of<float>(from, part, scale, tile, tile_dim);
  }
}

void load_transposed(const ConstRows& from, const Part& part, float scale, float* tile,
                     Index tile_dim) {
  load_lanes(from, part, scale, tile, tile_dim);
  if (part.rows == tile_dim) return;
  for (Index d = 0; d < part.dims; ++d)
    std::fill(tile + d * tile_dim + part.rows, tile + (d + 1) * tile_dim, 0.0F);
}

void store_rows(const float* tile, Index tile_row, const Rows& to, const Part& part) {
  switch (to.dtype) {
    case Dtype::f16:
      return store_rows_of<F16>(tile, tile_row, to, part);
    case Dtype::bf16:
      return store_rows_of<Bf16>(tile, tile_row, to, part);
    default:
      return store_rows_of<float>(tile, tile_row, to, part);
  }
}

void store_transposed(const float* tile, Index tile_dim, const float* factor, const Rows& to,
                      const Part& part) {
  switch (to.dtype) {
    case Dtype::f16:
      return store_transposed_of<F16>(tile, tile_dim, factor, to, part);
    case Dtype::bf16:
      return store_transposed_of<Bf16>(tile, tile_dim, factor, to, part);
    default:
      return store_transposed_of<float>(tile, tile_dim, factor, to, part);
  }
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
