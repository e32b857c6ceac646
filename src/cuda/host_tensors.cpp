#include "cuda/host_tensors.hpp"

#include <cstring>

namespace ingot::cuda {
namespace {

constexpr std::uintptr_t boundary = 256;  // what allocations of the GPU are aligned to

bool is_packed(const Sizes& sizes, const Strides& strides) {
  std::int64_t next = 1;
  for (std::size_t i = 4; i-- > 0;) {
    if (sizes[i] != 1 && strides[i] != next) return false;
    next *= sizes[i];
  }
  return true;
}

}  // namespace

Span span_of(const Sizes& sizes, const Strides& strides, std::int64_t element_bytes) {
  std::int64_t low = 0;
  std::int64_t high = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    if (sizes[i] == 0) return {};
    const std::int64_t reach = (sizes[i] - 1) * strides[i];
    (reach < 0 ? low : high) += reach;
  }
  return {(high - low + 1) * element_bytes, -low * element_bytes};
}

void copy_elements(void* to, const void* from, const Sizes& sizes, const Strides& strides,
                   std::int64_t element_bytes) {
  auto* target = static_cast<std::byte*>(to);
  const auto* source = static_cast<const std::byte*>(from);
  const bool has_whole_rows = strides[3] == 1 || sizes[3] == 1;
  const std::int64_t columns = has_whole_rows ? 1 : sizes[3];
  const auto bytes =
      static_cast<std::size_t>(has_whole_rows ? sizes[3] * element_bytes : element_bytes);
  for (std::int64_t i = 0; i < sizes[0] * sizes[1] * sizes[2]; ++i) {
    const std::int64_t row = i % sizes[2] * strides[2] + i / sizes[2] % sizes[1] * strides[1] +
                             i / (sizes[1] * sizes[2]) * strides[0];
    for (std::int64_t d = 0; d < columns; ++d) {
      const std::int64_t offset = (row + d * strides[3]) * element_bytes;
      std::memcpy(target + offset, source + offset, bytes);
    }
  }
}

std::byte* HostTensors::allocate(const void* data, const Span& span) {
  const std::uintptr_t lowest = reinterpret_cast<std::uintptr_t>(data) - span.origin;
  const std::uintptr_t offset = lowest % boundary;
  memory_.push_back(std::make_unique<Device::StreamMemory>(
      device_, static_cast<std::size_t>(span.bytes) + offset, stream_));
  return memory_.back()->data() + offset;
}

void* HostTensors::add_input(const void* data, const Sizes& sizes, const Strides& strides,
                             std::int64_t element_bytes) {
  const Span span = span_of(sizes, strides, element_bytes);
  if (span.bytes == 0) return nullptr;
  std::byte* const lowest = allocate(data, span);
  const Driver& driver = device_.driver();
  driver.check(driver.cuMemcpyHtoDAsync(reinterpret_cast<DeviceAddress>(lowest),
                                        static_cast<const std::byte*>(data) - span.origin,
                                        static_cast<std::size_t>(span.bytes), stream_),
               "copying " + std::to_string(span.bytes) + " bytes to the GPU");
  return lowest + span.origin;
}

void* HostTensors::add_output(void* data, const Sizes& sizes, const Strides& strides,
                              std::int64_t element_bytes) {
  const Span span = span_of(sizes, strides, element_bytes);
  void* const copy = add_input(data, sizes, strides, element_bytes);
  if (copy == nullptr) return nullptr;
  outputs_.push_back(
      {static_cast<std::byte*>(data),
       reinterpret_cast<DeviceAddress>(copy) - static_cast<DeviceAddress>(span.origin), span, sizes,
       strides, element_bytes});
  return copy;
}

// After an error, copies from pinned memory may still be under way.
HostTensors::~HostTensors() {
  if (!finished_) device_.driver().cuStreamSynchronize(stream_);
}

void HostTensors::finish() {
  const Driver& driver = device_.driver();
  staged_.resize(outputs_.size());
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    void* target = output.data - output.span.origin;
    if (!is_packed(output.sizes, output.strides)) {
      staged_[i].resize(static_cast<std::size_t>(output.span.bytes));
      target = staged_[i].data();
    }
    driver.check(driver.cuMemcpyDtoHAsync(target, output.address,
                                          static_cast<std::size_t>(output.span.bytes), stream_),
                 "copying " + std::to_string(output.span.bytes) + " bytes from the GPU");
  }
  driver.check(driver.cuStreamSynchronize(stream_), "waiting for the GPU");
  finished_ = true;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (staged_[i].empty()) continue;
    copy_elements(output.data, staged_[i].data() + output.span.origin, output.sizes, output.strides,
                  output.element_bytes);
  }
}

}  // namespace ingot::cuda
