// Buffers and attributes of a custom call of XLA. What is wrong with one is thrown as CallError.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "arrays.hpp"
#include "xla_ffi.hpp"

namespace ingot_python {

/// A buffer with its name in messages.
struct Buffer {
  const char* name;
  const xla::Buffer& xla;
};

Buffer buffer(const xla::Values& values, std::int64_t index, const char* name, Ranks ranks);

/// T: std::int64_t or double. Throws where there is no attribute of this name and type.
template <class T>
T attribute(const xla::Attributes& attributes, std::string_view name);

/// 0 where there is none of this name: programs that were exported by an earlier version.
template <class T>
T optional_attribute(const xla::Attributes& attributes, std::string_view name);

/// XLA's name of a type, as JAX has it.
std::string name_of(xla::DataType dtype);

ingot_dtype dtype_of(const Buffer& buffer);

/// XLA checks nothing of a call that names the target itself, and sizes are read from q, k and v.
void require_shape(const Buffer& buffer, const std::array<std::int64_t, 4>& shape);

ingot_tensor contiguous(const Buffer& buffer);

View view_of(const Buffer& buffer, Element element, int device_type);

}  // namespace ingot_python
