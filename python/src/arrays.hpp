// Arrays of any package (NumPy, PyTorch, JAX, CuPy, MLX) as ingot_tensor, without a copy.
#pragma once

#include <ingot/ingot.h>
#include <nanobind/nanobind.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loans.hpp"

namespace ingot_python {

namespace nb = nanobind;

/// DLDeviceType
enum DeviceType : int { device_cpu = 1, device_cuda = 2, device_cuda_host = 3, device_metal = 8 };

/// What an array may hold, besides the numbers that ingot_dtype has: what masks and lengths are.
enum class Element { number, boolean, int32 };

/// How many dimensions an array may have, from .. to.
struct Ranks {
  int least, most;
};

/// Of a View of booleans or of int32.
constexpr ingot_dtype dtype_bool = 256, dtype_int32 = 257;

struct View {
  ingot_tensor tensor{};
  ingot_metal_slice slice{};  ///< of a MetalTensor: where it lies; tensor.data is null
  ingot_dtype dtype = INGOT_DTYPE_DEFAULT;
  std::array<std::int64_t, 4> shape{};
  std::size_t rank = 4;
  int device_type = 0;  ///< DeviceType or another of DLPack's
  int device_id = 0;
};

/// A tensor in an MTLBuffer, for packages whose arrays cannot say so by DLPack. Made in Python.
struct MetalTensor {
  MetalTensor(std::uintptr_t buffer, std::size_t offset, const std::string& dtype,
              const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides);

  View view;
};

/// The bits of bfloat16 in an array of 16-bit unsigned integers, for packages whose arrays cannot
/// say so by DLPack. Made in Python.
struct Bfloat16 {
  nb::object bits;
};

/// The type called "float32", "float16", "bfloat16" or "float64"; throws InvalidArgument naming
/// `argument` for another.
ingot_dtype dtype_named(const std::string& name, const char* argument);

/// "float32", "float16", "bfloat16", "float64", "bool" or "int32"
const char* dtype_text(ingot_dtype dtype);

/// Throws unless `got` is within.
void require_rank(Ranks ranks, std::int64_t got, const char* argument);

[[noreturn]] void wrong_dtype(const char* argument, Element element, const std::string& got);

/// The arrays of a call, whose memory this holds. Lives and dies with the interpreter's lock.
class Arrays {
 public:
  Arrays() { loans_.reserve(16); }

  /// `array` with `rank` dimensions (3: lse, 4: the others), valid while it and this live. Throws
  /// InvalidArgument naming `argument`.
  View view(nb::handle array, const char* argument, int rank, Access access = Access::read);

  /// Of an output that may be None.
  std::optional<View> output(nb::handle array, const char* argument, int rank);

  /// `array`, which may be None.
  std::optional<View> optional(nb::handle array, const char* argument, Ranks ranks, Element element,
                               Access access = Access::read);

 private:
  View any(nb::handle array, const char* argument, Ranks ranks, Element element, Access access);

  std::vector<Loan> loans_;
};

/// "(2, 8, 128, 64)"
std::string shape_text(const std::array<std::int64_t, 4>& shape, std::size_t rank);

/// "cuda:1", or what DLPack has of another kind of device
std::string device_text(const View& view);

}  // namespace ingot_python
