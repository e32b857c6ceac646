// How a call reaches its tensors: slices of the caller's buffers, host memory where it lies, or
// copies of it.
#include <unistd.h>

#include "core/error.hpp"
#include "ingot/ingot.h"
#include "metal/device/call.hpp"

namespace ingot::metal {
namespace {

/// Of Apple silicon. A buffer over host memory starts at a page; its end may lie within one.
constexpr std::size_t page_bytes = 16384;

[[noreturn]] void fail(const std::string& message) { throw Error(Code::invalid_argument, message); }

/// Host memory as the GPU sees it.
struct Mapped {
  NS::SharedPtr<MTL::Buffer> buffer;  ///< whole pages; null where the GPU cannot have them
  NS::UInteger offset = 0;            ///< of the memory in them
};

Mapped map_pages(MTL::Device* device, std::byte* start, std::size_t bytes) {
  const std::size_t before = reinterpret_cast<std::uintptr_t>(start) % page_bytes;
  const std::size_t pages = (before + bytes + page_bytes - 1) / page_bytes;
  return {NS::TransferPtr(device->newBuffer(start - before, pages * page_bytes,
                                            MTL::ResourceStorageModeShared, nullptr)),
          before};
}

}  // namespace

/// The part of the caller's buffer that a tensor uses, checked.
Binding Call::slice(const char* name, const void* data, const Span& span,
                    std::int64_t alignment) const {
  const auto& given = *static_cast<const ingot_metal_slice*>(data);
  const std::string argument = std::string(name) + ".data: ";
  if (given.buffer == nullptr) fail(argument + "buffer of the slice must not be NULL");
  auto* buffer = static_cast<MTL::Buffer*>(given.buffer);
  if (buffer->device() != device_.handle()) {
    fail(argument + "buffer of the slice must be one of this device, is one of another");
  }
  if (given.offset % static_cast<std::size_t>(alignment) != 0) {
    fail(argument + "offset of the slice must be a multiple of " + std::to_string(alignment) +
         " bytes, got " + std::to_string(given.offset));
  }
  // Offsets beyond 2^62 cannot be in a buffer; below, sums do not overflow.
  const std::int64_t length = static_cast<std::int64_t>(buffer->length());
  const std::int64_t offset =
      given.offset > buffer->length() ? length : static_cast<std::int64_t>(given.offset);
  if (offset + span.low < 0 || offset + span.high > length || given.offset > buffer->length()) {
    fail(argument + "must lie inside its buffer of " + std::to_string(length) +
         " bytes, reaches from " + std::to_string(span.low) + " to " + std::to_string(span.high) +
         " around offset " + std::to_string(given.offset));
  }
  return {buffer, given.offset, name};
}

/// validate() sees addresses, not what lies behind slices.
void Call::check_distinct(const char* name, const Binding& output) const {
  for (const Binding& other : bindings_) {
    const bool same = other.buffer == output.buffer && other.offset == output.offset;
    if (same && other.name != nullptr && output.name != nullptr) {
      fail(std::string(name) + ".data: must not be the same memory as " + other.name);
    }
  }
}

Call::Region Call::region(const char* name, void* data, const View& view) {
  const Span span = span_of(view);
  if (span.bytes() == 0) return {{dummy()}, nullptr};
  if (submission_.memory == Memory::metal_slice) {
    return {slice(name, data, span, view.element_bytes), nullptr};
  }
  const auto before = static_cast<NS::UInteger>(-span.low);
  std::byte* const start = static_cast<std::byte*>(data) + span.low;
  if (reinterpret_cast<std::uintptr_t>(start) % page_bytes == 0) {
    Mapped mapped = map_pages(device_.handle(), start, span.bytes());
    if (mapped.buffer) return {{completion_->keep(std::move(mapped.buffer)), before}, nullptr};
  }
  MTL::Buffer* copy = completion_->keep(device_.buffers()->take(span.bytes(), name));
  return {{copy, before}, static_cast<std::byte*>(copy->contents()) + before};
}

void Call::bind_input(int index, const char* name, const ConstTensor& tensor, const View& view) {
  const Region found = region(name, const_cast<void*>(tensor.data), view);
  if (found.staged != nullptr) {
    copy_elements(view, found.staged, static_cast<const std::byte*>(tensor.data));
  }
  bindings_[index] = found.element;
}

void Call::bind_output(int index, const char* name, const Tensor& tensor, const View& view) {
  const Region found = region(name, tensor.data, view);
  check_distinct(name, found.element);
  if (found.staged != nullptr) {
    completion_->copy_back(view, static_cast<std::byte*>(tensor.data), found.staged);
  }
  bindings_[index] = found.element;
}

MTL::Buffer* Call::dummy() {
  if (dummy_ == nullptr) dummy_ = completion_->keep(device_.buffers()->take(1, "an argument"));
  return dummy_;
}

void Call::bind_nothing(int index) { bindings_[index] = {dummy()}; }

void Call::take_workspace(std::span<std::byte> given, std::size_t bytes) {
  if (bytes == 0) return;
  if (given.data() == nullptr) {
    workspace_.buffer = temporary(bytes, "the workspace");
    return;
  }
  if (submission_.memory == Memory::metal_slice) {
    constexpr std::int64_t alignment = 64;
    workspace_ = slice("workspace", given.data(), {0, static_cast<std::int64_t>(bytes)}, alignment);
    return;
  }
  Mapped mapped = map_pages(device_.handle(), given.data(), bytes);
  if (!mapped.buffer) {
    fail("workspace: must be memory that the GPU can map, is " + std::to_string(bytes) +
         " bytes that it cannot (NULL: ingot's own)");
  }
  workspace_ = {completion_->keep(std::move(mapped.buffer)), mapped.offset};
}

/// Memory that is free again when the call has run.
MTL::Buffer* Call::temporary(std::size_t bytes, const char* purpose) {
  // Nobody tells when a caller's encoder has run: its command buffer alone keeps the memory.
  const bool untold = submission_.encoder != nullptr && submission_.stream == nullptr;
  return untold ? completion_->keep(device_.buffers()->make(bytes, purpose))
                : completion_->keep(device_.buffers()->take(bytes, purpose));
}

void Call::bind_workspace(int index, std::size_t offset) {
  if (workspace_.buffer == nullptr) return bind_nothing(index);
  bindings_[index] = {workspace_.buffer, workspace_.offset + offset};
}

}  // namespace ingot::metal
