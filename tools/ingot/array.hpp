// A host array: element type, shape, strides and the memory, which may be a mapped file.
#pragma once

#include <ingot/ingot.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dtype.hpp"

namespace ingot::cli {

using Shape = std::vector<std::int64_t>;

struct Array {
  ingot_dtype dtype = INGOT_F32;
  Shape shape;
  Shape strides;                    ///< in elements, as many as shape has
  std::shared_ptr<std::byte> data;  ///< element 0; keeps the memory or the mapping behind it alive
};

/// "[2, 8, 128]"
std::string shape_text(const Shape& shape);

/// C-contiguous (last axis fastest) or Fortran-contiguous strides.
Shape contiguous_strides(const Shape& shape, bool fortran = false);

/// Product of the sizes. The shape has passed checked_bytes().
std::int64_t element_count(const Shape& shape);

/// Bytes of a packed array of this shape. Throws Failure where a size is negative or the product,
/// counting sizes of 0 as 1, is over 2^63 - 1.
std::int64_t checked_bytes(const Shape& shape, std::size_t element_bytes);

/// A new C-contiguous array of zeros. Throws Failure where memory does not suffice.
Array make_array(ingot_dtype dtype, const Shape& shape);

/// The array itself, or a packed copy where its memory is not aligned for its element type.
Array aligned(const Array& array);

/// A packed (C-contiguous) copy of another element type.
Array converted(const Array& array, ingot_dtype dtype);

/// All elements as double, in C order of the logical axes.
std::vector<double> values_of(const Array& array);

/// Bytes of element 0 onward when the array is C-contiguous, as outputs are.
inline std::size_t packed_bytes(const Array& array) {
  return static_cast<std::size_t>(element_count(array.shape)) * dtype_bytes(array.dtype);
}

}  // namespace ingot::cli
