#include "array.hpp"

#include <cstring>
#include <limits>
#include <new>

#include "failure.hpp"

namespace ingot::cli {
namespace {

constexpr std::size_t alignment = 64;

// Calls f(offset in elements) for every element, last axis fastest.
template <class F>
void for_each_offset(const Array& array, F&& f) {
  if (element_count(array.shape) == 0) return;
  Shape index(array.shape.size(), 0);
  std::int64_t offset = 0;
  while (true) {
    f(offset);
    std::size_t axis = array.shape.size();
    while (axis > 0) {
      --axis;
      offset += array.strides[axis];
      if (++index[axis] < array.shape[axis]) break;
      offset -= array.strides[axis] * array.shape[axis];
      index[axis] = 0;
      if (axis == 0) return;
    }
    if (array.shape.empty()) return;
  }
}

}  // namespace

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

Shape contiguous_strides(const Shape& shape, bool fortran) {
  Shape strides(shape.size(), 1);
  std::int64_t stride = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::size_t axis = fortran ? i : shape.size() - 1 - i;
    strides[axis] = stride;
    stride *= shape[axis] > 0 ? shape[axis] : 1;
  }
  return strides;
}

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::int64_t checked_bytes(const Shape& shape, std::size_t element_bytes) {
  auto extent = static_cast<std::int64_t>(element_bytes);
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) throw Failure("shape " + shape_text(shape) + " has a negative size");
    empty = empty || size == 0;
    const std::int64_t factor = size > 0 ? size : 1;
    if (extent > std::numeric_limits<std::int64_t>::max() / factor) {
      throw Failure("shape " + shape_text(shape) + " is over 2^63 bytes");
    }
    extent *= factor;
  }
  return empty ? 0 : extent;
}

Array make_array(ingot_dtype dtype, const Shape& shape) {
  const auto bytes = static_cast<std::size_t>(checked_bytes(shape, dtype_bytes(dtype)));
  // One byte more than nothing, so that an empty array still has an address.
  auto* memory =
      static_cast<std::byte*>(::operator new(bytes + 1, std::align_val_t{alignment}, std::nothrow));
  if (memory == nullptr) {
    throw Failure("out of memory: an array " + shape_text(shape) + " takes " +
                  std::to_string(bytes) + " bytes");
  }
  const auto release = [](std::byte* p) { ::operator delete(p, std::align_val_t{alignment}); };
  std::shared_ptr<std::byte> data(memory, release);
  std::memset(memory, 0, bytes + 1);
  return {dtype, shape, contiguous_strides(shape), std::move(data)};
}

std::vector<double> values_of(const Array& array) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(element_count(array.shape)));
  const std::size_t bytes = dtype_bytes(array.dtype);
  for_each_offset(array, [&](std::int64_t offset) {
    const std::byte* element = array.data.get() + offset * static_cast<std::int64_t>(bytes);
    values.push_back(read_element(element, array.dtype));
  });
  return values;
}

Array converted(const Array& array, ingot_dtype dtype) {
  Array result = make_array(dtype, array.shape);
  const std::size_t from_bytes = dtype_bytes(array.dtype);
  std::byte* target = result.data.get();
  for_each_offset(array, [&](std::int64_t offset) {
    const std::byte* element = array.data.get() + offset * static_cast<std::int64_t>(from_bytes);
    write_element(read_element(element, array.dtype), dtype, target);
    target += dtype_bytes(dtype);
  });
  return result;
}

Array aligned(const Array& array) {
  const auto address = reinterpret_cast<std::uintptr_t>(array.data.get());
  return address % dtype_bytes(array.dtype) == 0 ? array : converted(array, array.dtype);
}

}  // namespace ingot::cli
