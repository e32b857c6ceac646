// Arrays of any package (NumPy, PyTorch, JAX, CuPy, MLX) as ingot_tensor, without a copy.
#pragma once

#include <ingot/ingot.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <cstdint>
#include <string>

namespace ingot_python {

namespace nb = nanobind;

struct View {
  ingot_tensor tensor{};
  ingot_dtype dtype = INGOT_DTYPE_DEFAULT;
  std::array<std::int64_t, 4> shape{};
  int device_type = 0;  ///< DLDeviceType: 1 CPU, 2 CUDA, 8 Metal
  int device_id = 0;
  nb::ndarray<nb::ro> owner;  ///< holds the memory where the package has no borrowing interface
};

/// The view of `array` with `rank` dimensions (3: lse, 4: the others), valid while the array lives.
/// Uses DLPack's C exchange interface (tens of nanoseconds) where the array's type has it, else
/// __dlpack__ or the buffer protocol. Raises InvalidArgument naming `argument`.
enum class Access { read, write };
View view_of(nb::handle array, const char* argument, std::size_t rank,
             Access access = Access::read);

/// "(2, 8, 128, 64)"
std::string shape_text(const std::array<std::int64_t, 4>& shape, std::size_t rank);

}  // namespace ingot_python
