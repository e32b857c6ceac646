#include "cuda/tensor_map.hpp"

#include <algorithm>

namespace ingot::cuda {
namespace {

// CUtensorMapDataType, and the other enumerations of cuTensorMapEncodeTiled.
constexpr int type_f16 = 6, type_f32 = 7, type_bf16 = 9;
constexpr int no_interleave = 0, swizzle_128_bytes = 3, promote_to_256_bytes = 3, fill_zeros = 0;
constexpr std::int64_t granule = 16;              // bytes
constexpr std::int64_t stride_limit = 1LL << 40;  // bytes

int driver_type(Dtype dtype) {
  return dtype == Dtype::f32 ? type_f32 : dtype == Dtype::f16 ? type_f16 : type_bf16;
}

bool is_addressable(std::int64_t bytes) {
  return bytes > 0 && bytes < stride_limit && bytes % granule == 0;
}

}  // namespace

TensorMapSpec boxes_of(const ConstTensor& tensor, Dtype dtype,
                       const std::array<std::int64_t, 4>& sizes, std::int64_t rows) {
  const auto& [batch, heads, seqlen, dim] = sizes;
  TensorMapSpec spec;
  spec.data = tensor.data;
  spec.dtype = dtype;
  spec.rank = 5;
  spec.size = {dim, seqlen, heads, batch, 1};
  spec.stride = {tensor.stride[3], tensor.stride[2], tensor.stride[1], tensor.stride[0], 0};
  spec.box = {64, static_cast<std::uint32_t>(rows), 1, 1, 1};
  return spec;
}

std::optional<TensorMap> encode(const Driver& driver, const TensorMapSpec& spec) {
  const std::int64_t element = size_bytes(spec.dtype);
  if (reinterpret_cast<std::uintptr_t>(spec.data) % granule != 0) return std::nullopt;
  if (spec.size[0] > 1 && spec.stride[0] != 1) return std::nullopt;
  std::uint64_t sizes[5];
  std::uint64_t strides[4];
  const std::uint32_t ones[] = {1, 1, 1, 1, 1};
  std::int64_t packed = (spec.size[0] * element + granule - 1) / granule * granule;
  for (std::uint32_t i = 0; i < spec.rank; ++i) {
    sizes[i] = static_cast<std::uint64_t>(spec.size[i]);
    if (i == 0) continue;
    const std::int64_t bytes = spec.size[i] > 1 ? spec.stride[i] * element : packed;
    if (!is_addressable(bytes)) return std::nullopt;
    strides[i - 1] = static_cast<std::uint64_t>(bytes);
    packed = std::max(packed, bytes);
  }
  TensorMap map;
  const Result result = driver.cuTensorMapEncodeTiled(
      &map, driver_type(spec.dtype), spec.rank, const_cast<void*>(spec.data), sizes, strides,
      spec.box.data(), ones, no_interleave, swizzle_128_bytes, promote_to_256_bytes, fill_zeros);
  if (result == code::invalid_value) return std::nullopt;
  driver.check(result, "cuTensorMapEncodeTiled");
  return map;
}

}  // namespace ingot::cuda
