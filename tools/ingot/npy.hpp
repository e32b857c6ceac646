// NumPy's .npy format, versions 1, 2 and 3: element types f2, f4 and f8, for masks b1 and u1, for
// lengths i4 and i8; C and Fortran order, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "array.hpp"
#include "mapped_file.hpp"

namespace ingot::cli {

/// What a file is to hold.
enum class NpyElements : std::uint8_t { numbers, bytes, lengths };

/// What the header says, checked against the size of the file.
struct NpyInfo {
  ingot_dtype dtype = INGOT_F32;
  Shape shape;
  bool fortran_order = false;
  std::size_t data_offset = 0;  ///< bytes from the start of the file to element 0
};

/// Reads and checks the header of a whole file in memory. Throws Failure, whose text does not name
/// the file.
NpyInfo parse_npy(std::span<const std::byte> file, NpyElements elements = NpyElements::numbers);

/// A header of version 1 for a C-contiguous array, padded so that data starts at a multiple of 64
/// bytes. Throws Failure for bf16, which the format does not have.
std::string npy_header(ingot_dtype dtype, const Shape& shape);

/// The array points into the file. Throws Failure "PATH: reason".
Array load_npy(const MappedFile& file, NpyElements elements = NpyElements::numbers);

}  // namespace ingot::cli
