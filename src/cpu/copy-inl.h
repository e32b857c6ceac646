// Between tensors of any dtype and stride and f32 tiles. Declarations; copy.cpp defines them once
// per instruction set.
#if defined(INGOT_CPU_COPY_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_COPY_INL_H
#undef INGOT_CPU_COPY_INL_H
#else
#define INGOT_CPU_COPY_INL_H
#endif

#include "cpu/simd-inl.h"
#include "cpu/views.hpp"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

/// A rectangle of a tensor: rows [row, row + rows) by dims [0, dims).
struct Part {
  Index row, rows, dims;
};

/// tile[r * tile_row + d] = element (row + r, d) as f32. Zeros follow up to padded_dims (>= dims).
void load_rows(const ConstRows& from, const Part& part, float* tile, Index tile_row,
               Index padded_dims);

/// tile[d * tile_dim + r] = scale * element (row + r, d). Zeros fill r up to tile_dim, a multiple
/// of kLanes.
void load_transposed(const ConstRows& from, const Part& part, float scale, float* tile,
                     Index tile_dim);

/// As load_transposed(), but writes rows [0, part.rows) of each line alone and asks nothing of
/// tile_dim.
void load_lanes(const ConstRows& from, const Part& part, float scale, float* tile, Index tile_dim);

/// element (row + r, d) = tile[r * tile_row + d], rounded to nearest even.
void store_rows(const float* tile, Index tile_row, const Rows& to, const Part& part);

/// element (row + r, d) = factor[r] * tile[d * tile_dim + r], rounded to nearest even.
void store_transposed(const float* tile, Index tile_dim, const float* factor, const Rows& to,
                      const Part& part);

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
