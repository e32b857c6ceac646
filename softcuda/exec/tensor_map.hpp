// A CUtensorMap: what cuTensorMapEncodeTiled is given, in its 128 bytes.
#pragma once

#include <cstdint>

namespace softcuda {

struct TensorMapFields {
  static constexpr std::uint64_t right = 0x70616D2061647563;
  std::uint64_t magic;
  std::uint64_t base;
  std::uint64_t strides[5];  ///< bytes; the first is the size of an element
  std::uint32_t sizes[5];
  std::uint16_t box[5];
  std::uint8_t rank, element_bytes, swizzle, type;
};
static_assert(sizeof(TensorMapFields) <= 128);

inline constexpr int swizzle_none = 0, swizzle_32 = 1, swizzle_64 = 2, swizzle_128 = 3;

}  // namespace softcuda
