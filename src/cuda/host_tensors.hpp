// Calls with tensors in host memory: each is copied to the GPU with the gaps between its elements,
// at the same distance from a 256-byte boundary, so that kernels see the caller's strides and
// alignment.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/problem.hpp"
#include "cuda/cuda_device.hpp"

namespace ingot::cuda {

using Sizes = std::array<std::int64_t, 4>;

/// Bytes from the lowest to behind the highest element of a strided tensor, and where the element
/// with index 0 lies between them.
struct Span {
  std::int64_t bytes = 0;
  std::int64_t origin = 0;
};
Span span_of(const Sizes& sizes, const Strides& strides, std::int64_t element_bytes);

/// Copies the elements of a strided tensor, and nothing between them; both addresses are of element
/// 0 and have the same strides.
void copy_elements(void* to, const void* from, const Sizes& sizes, const Strides& strides,
                   std::int64_t element_bytes);

/// The copies of one call on one stream.
class HostTensors {
 public:
  HostTensors(const Device& device, StreamHandle stream) : device_(device), stream_(stream) {}
  ~HostTensors();
  HostTensors(const HostTensors&) = delete;
  HostTensors& operator=(const HostTensors&) = delete;

  /// Copies an input to the GPU and returns its address there.
  void* add_input(const void* data, const Sizes& sizes, const Strides& strides,
                  std::int64_t element_bytes);
  /// The same for an output: an element that no kernel writes keeps its value.
  void* add_output(void* data, const Sizes& sizes, const Strides& strides,
                   std::int64_t element_bytes);

  /// Copies the outputs back and waits. What lies between their elements is not touched.
  void finish();

 private:
  struct Output {
    std::byte* data;
    DeviceAddress address;
    Span span;
    Sizes sizes;
    Strides strides;
    std::int64_t element_bytes;
  };
  std::byte* allocate(const void* data, const Span& span);

  const Device& device_;
  StreamHandle stream_;
  std::vector<std::unique_ptr<Device::StreamMemory>> memory_;
  std::vector<Output> outputs_;
  std::vector<std::vector<std::byte>> staged_;  ///< of outputs with gaps; copies may be under way
  bool finished_ = false;
};

}  // namespace ingot::cuda
