#include "heap.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "inject.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::uint64_t heap_alignment = 256;
constexpr int fresh_memory = 0xFB;  // heaps are not cleared: NaN as float, a big number as integer

struct SizeAndAlign {
  std::uint64_t size;
  std::uint64_t align;
};

std::uint64_t aligned(std::uint64_t value) {
  return (value + heap_alignment - 1) / heap_alignment * heap_alignment;
}

SizeAndAlign size_and_align(const Device&, std::uint64_t length, std::uint64_t) {
  return {aligned(length), heap_alignment};
}

Ref<Heap> new_heap(Device& device, HeapDescriptor* descriptor) {
  if (descriptor == nullptr || descriptor->size == 0) {
    error("heap-size", text(current_message(), ": the descriptor's size must not be 0"));
    return nullptr;
  }
  if (fails_now(Failure::out_of_memory) || !device.reserve(descriptor->size)) {
    return nullptr;
  }
  return make<Heap>(&device, *descriptor);
}

}  // namespace

Ref<Object> HeapDescriptor::copy() {
  Ref<HeapDescriptor> twin = make<HeapDescriptor>();
  twin->size = size;
  twin->type = type;
  twin->set_option_bits(option_bits());
  return twin;
}

void HeapDescriptor::set_option_bits(std::uint64_t bits) {
  const ResourceOptions options{bits};
  cache_mode = options.cache();
  storage_mode = static_cast<std::uint64_t>(options.storage());
  tracking_mode = options.tracking();
}

Heap::Heap(Ref<Device> device, const HeapDescriptor& descriptor)
    : device_(std::move(device)),
      options_{descriptor.option_bits()},
      type_(descriptor.type),
      size_(aligned(descriptor.size)),
      memory_(static_cast<std::byte*>(std::aligned_alloc(heap_alignment, size_))) {
  std::memset(memory_, fresh_memory, size_);
}

Heap::~Heap() {
  device_->give_back(size_);
  std::free(memory_);
}

std::uint64_t Heap::used_size() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (const auto& [offset, end] : used_) {
    sum += end - offset;
  }
  return sum;
}

std::uint64_t Heap::max_available(std::uint64_t) const {
  const std::lock_guard lock(mutex_);
  std::uint64_t at = 0;
  std::uint64_t best = 0;
  for (const auto& [offset, end] : used_) {
    best = std::max(best, offset > at ? offset - at : 0);
    at = std::max(at, end);
  }
  return std::max(best, size_ - at);
}

bool Heap::accepts(std::uint64_t length, std::uint64_t option_bits) const {
  const ResourceOptions options{option_bits};
  if (options.storage() != options_.storage()) {
    error("storage-mode", text(current_message(), ": the buffer's storage mode ",
                               static_cast<std::uint64_t>(options.storage()),
                               " must be the heap's, ", storage_mode()));
    return false;
  }
  return valid_new_buffer(*device_, length, options);
}

Ref<Buffer> Heap::new_buffer(std::uint64_t length, std::uint64_t option_bits) {
  if (!accepts(length, option_bits)) {
    return nullptr;
  }
  const std::lock_guard lock(mutex_);
  std::uint64_t at = 0;
  for (const auto& [offset, end] : used_) {
    if (at + length <= offset) {
      break;
    }
    at = std::max(at, aligned(end));
  }
  if (at + length > size_) {
    return nullptr;
  }
  used_[at] = at + length;
  // A heap's hazards are tracked only when the heap was asked to.
  const ResourceOptions options{option_bits | (options_.tracking() == 2 ? 0u : 1u << 8)};
  return make<Buffer>(device_, options, Ref<Heap>(this), at, length);
}

Ref<Buffer> Heap::new_buffer_at(std::uint64_t length, std::uint64_t option_bits,
                                std::uint64_t offset) {
  if (!accepts(length, option_bits)) {
    return nullptr;
  }
  if (type_ != 1 || offset % heap_alignment != 0 || offset + length > size_) {
    error("heap-placement",
          text(current_message(), ": offset ", offset, " with length ", length,
               " must be a multiple of ", heap_alignment, " inside a placement heap of ", size_));
    return nullptr;
  }
  const std::lock_guard lock(mutex_);
  used_[offset] = std::max(used_[offset], offset + length);
  return make<Buffer>(device_, ResourceOptions{option_bits}, Ref<Heap>(this), offset, length);
}

void Heap::free_range(std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  used_.erase(offset);
}

void define_heap() {
  using D = HeapDescriptor;
  Definition<D>("MTLHeapDescriptor", class_of<Object>)
      .allocatable()
      .property<&D::size>("size")
      .property<&D::storage_mode>("storageMode")
      .property<&D::cache_mode>("cpuCacheMode")
      .property<&D::tracking_mode>("hazardTrackingMode", {10, 15})
      .property<&D::type>("type", {10, 15})
      .method<&D::option_bits>("resourceOptions", {10, 15})
      .method<&D::set_option_bits>("setResourceOptions:", {10, 15});
  Definition<Heap>("MTLHeap", class_of<Allocation>)
      .method<&Heap::device>("device")
      .method<&Heap::label>("label")
      .method<&Heap::set_label>("setLabel:")
      .method<&Heap::size>("size")
      .method<&Heap::used_size>("usedSize")
      .method<&Heap::size>("currentAllocatedSize")
      .method<&Heap::max_available>("maxAvailableSizeWithAlignment:")
      .method<&Heap::storage_mode>("storageMode")
      .method<&Heap::option_bits>("resourceOptions", {10, 15})
      .method<&Heap::type>("type", {10, 15})
      .method<&Heap::new_buffer>("newBufferWithLength:options:")
      .method<&Heap::new_buffer_at>("newBufferWithLength:options:offset:", {10, 15});
  Definition<Device>()
      .method<&new_heap>("newHeapWithDescriptor:", {10, 13})
      .method<&size_and_align>("heapBufferSizeAndAlignWithLength:options:", {10, 13});
}

}  // namespace softmetal
