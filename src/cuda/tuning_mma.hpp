// What the tile tables of the kernels for sm_80 and newer have in common, forward and backward.
#pragma once

#include <cstdint>
#include <string_view>

#include "cuda/tuning.hpp"

namespace ingot::cuda {

inline constexpr std::int64_t lanes = 32, mma_rows = 16, mma_cols = 16;

TypeName type_of(Dtype dtype);
/// What is compiled for a device: code of a compute capability runs on later ones of the same major
/// number.
std::string_view arch_of(const DeviceCaps& caps);

inline bool is_f32(const Config& c) { return c.element == TypeName{"float"}; }
inline std::int64_t element_bytes(const Config& c) { return is_f32(c) ? 4 : 2; }

/// What Config says of a problem's parts.
void set_parts(Config& config, const Problem& problem);

/// A width of at most `most` columns, a multiple of 16, in which `columns` are gone through with
/// the least padding; the widest of those.
std::int64_t chunk_of(std::int64_t columns, std::int64_t most);

/// Elements of kernels/tile.cuh, SharedTile.
inline std::int64_t tile_elements(const Config& c, std::int64_t rows, std::int64_t cols) {
  return rows * (cols + 16 / element_bytes(c));
}

/// Types, sizes and variant of a problem. Products are of 16-bit numbers only where q, k and v all
/// are of one such type.
Config common_config(const Problem& problem, const DeviceCaps& caps);

}  // namespace ingot::cuda
