// Arrays of any package (NumPy, PyTorch, JAX, CuPy, MLX) as ingot_tensor, without a copy.
#pragma once

#include <ingot/ingot.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace ingot_python {

namespace nb = nanobind;

/// DLDeviceType
enum DeviceType : int { device_cpu = 1, device_cuda = 2, device_cuda_host = 3, device_metal = 8 };

struct View {
  ingot_tensor tensor{};
  ingot_metal_slice slice{};  ///< of a MetalTensor: where it lies; tensor.data is null
  ingot_dtype dtype = INGOT_DTYPE_DEFAULT;
  std::array<std::int64_t, 4> shape{};
  int device_type = 0;  ///< DeviceType or another of DLPack's
  int device_id = 0;
  nb::ndarray<nb::ro> owner;  ///< holds the memory where the package has no borrowing interface
};

/// A tensor in an MTLBuffer, for packages whose arrays cannot say so by DLPack. Made in Python.
struct MetalTensor {
  MetalTensor(std::uintptr_t buffer, std::size_t offset, const std::string& dtype,
              const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides);

  View view;
  std::size_t rank;
};

/// The type called "float32", "float16", "bfloat16" or "float64"; raises InvalidArgument naming
/// `argument` for another.
ingot_dtype dtype_named(const std::string& name, const char* argument);

/// The view of `array` with `rank` dimensions (3: lse, 4: the others), valid while the array lives.
/// Uses DLPack's C exchange interface (tens of nanoseconds) where the array's type has it, else
/// __dlpack__ or the buffer protocol. Raises InvalidArgument naming `argument`.
enum class Access { read, write };
View view_of(nb::handle array, const char* argument, std::size_t rank,
             Access access = Access::read);

/// "(2, 8, 128, 64)"
std::string shape_text(const std::array<std::int64_t, 4>& shape, std::size_t rank);

}  // namespace ingot_python
