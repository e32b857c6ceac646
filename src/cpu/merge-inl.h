// What the kernels of the forward pass share: the end of a row, and, where the keys of a
// block are split, its partial results added up in the order of the keys.
#if defined(INGOT_CPU_MERGE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_MERGE_INL_H
#undef INGOT_CPU_MERGE_INL_H
#else
#define INGOT_CPU_MERGE_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/copy-inl.h"
#include "cpu/forward.hpp"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// f32 rows of keys or values of one tile, in place or copied.
struct TileRows {
  const float* data;
  Index row_stride;
};

/// (row_max + log2(row_sum)) ln 2, -inf for a row without weight.
inline float natural_lse(float row_max, float row_sum) {
  constexpr double ln_2 = 0.69314718055994530942;
  return static_cast<float>(
      (static_cast<double>(row_max) + std::log2(static_cast<double>(row_sum))) * ln_2);
}

inline void store_lse(const ForwardCall& call, Index batch, Index head, Index row, float row_max,
                      float row_sum) {
  if (call.args.lse.data == nullptr) return;
  const Rows to = head_rows(call.args.lse, Dtype::f32, batch, head);
  static_cast<float*>(to.data)[row * to.row_stride] = natural_lse(row_max, row_sum);
}

/// 1 / row_sum, 0 for a row without weight.
inline float weight_factor(float row_sum) { return row_sum == 0.0F ? 0.0F : 1.0F / row_sum; }

/// Row `lane` of block `index`: chunk by chunk into `sum` [head_dim_v] and the row's maximum and
/// weight.
inline OnlineSoftmax<float> merge_row(const ForwardCall& call, Index index, Index lane,
                                      float* sum) {
  const Index floats = partial_floats(call.config);
  const Index dims = call.config.head_dim_v;
  const Index chunk_floats = call.config.block_m * floats;
  const float* const first =
      call.partials + index * call.grid.split_k * chunk_floats + lane * floats;
  OnlineSoftmax<float> total{-std::numeric_limits<float>::infinity(), 0.0F};
  for (Index s = 0; s < call.grid.split_k; ++s) {
    total.row_max = max_(total.row_max, first[s * chunk_floats + dims]);
  }
  std::fill_n(sum, dims, 0.0F);
  for (Index s = 0; s < call.grid.split_k; ++s) {
    const float* const part = first + s * chunk_floats;
    const float weight = exp2_(part[dims] - total.offset());
    if (part[dims + 1] == 0.0F) continue;
    for (Index d = 0; d < dims; ++d) sum[d] += weight * part[d];
    total.row_sum += weight * part[dims + 1];
  }
  return total;
}

inline void merge_partials(const ForwardCall& call, Index index, float* scratch) {
  const Problem& p = call.problem;
  const RowBlock block = row_block(p, call.grid, call.config.block_m, index);
  for (Index lane = 0; lane < block.lanes(); ++lane) {
    const Index head = block.head + lane / block.rows;
    const Index row = block.row + lane % block.rows;
    const OnlineSoftmax<float> total = merge_row(call, index, lane, scratch);
    const float factor = weight_factor(total.row_sum);
    for (Index d = 0; d < p.head_dim_v; ++d) scratch[d] *= factor;
    store_rows(scratch, p.head_dim_v, head_rows(call.args.o, p.o, block.batch, head),
               {row, 1, p.head_dim_v});
    store_lse(call, block.batch, head, row, total.row_max, total.row_sum);
  }
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
