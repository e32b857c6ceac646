// Names and sizes of the element types of ingot.h.
#pragma once

#include <ingot/ingot.h>

#include <cstddef>
#include <optional>
#include <string_view>

namespace ingot::cli {

/// Element types of masks and lengths in files: no problem can name them.
constexpr ingot_dtype U8 = 256, I32 = 257, I64 = 258;

std::string_view dtype_name(ingot_dtype dtype);  ///< "f32"
std::size_t dtype_bytes(ingot_dtype dtype);
/// Inverse of dtype_name for those of ingot.h; also accepts PyTorch's names ("float16",
/// "bfloat16"). Empty where unknown.
std::optional<ingot_dtype> dtype_from_name(std::string_view name);

/// One element, which need not be aligned, from and to double. Writing rounds once, to nearest
/// even.
double read_element(const std::byte* element, ingot_dtype dtype);
void write_element(double value, ingot_dtype dtype, std::byte* element);

}  // namespace ingot::cli
