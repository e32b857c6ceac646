// Tensor maps: how the copy engine of Hopper addresses a tensor. Encoding one costs 50 ns, so they
// are made for every call and kept nowhere.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "core/problem.hpp"
#include "cuda/driver.hpp"

namespace ingot::cuda {

/// Dimensions from the innermost out; the first is contiguous. Strides in elements.
struct TensorMapSpec {
  const void* data = nullptr;
  Dtype dtype = Dtype::bf16;
  std::uint32_t rank = 0;
  std::array<std::int64_t, 5> size{};
  std::array<std::int64_t, 5> stride{};  ///< of a dimension of size 1 not looked at
  std::array<std::uint32_t, 5> box{};    ///< what one copy moves; the first spans 128 bytes at most
};

/// Boxes of 64 columns by `rows` rows of a tensor [batch, heads, seqlen, dim] of 16-bit numbers.
/// The fifth dimension is one wide.
TensorMapSpec boxes_of(const ConstTensor& tensor, Dtype dtype,
                       const std::array<std::int64_t, 4>& sizes, std::int64_t rows);

/// With 128-byte swizzle and zeros beyond the edges. Nothing where the copy engine cannot address
/// the tensor: data or a stride is no multiple of 16 bytes, a stride is negative or 2^40 bytes or
/// more, or the columns are not contiguous.
std::optional<TensorMap> encode(const Driver& driver, const TensorMapSpec& spec);

}  // namespace ingot::cuda
