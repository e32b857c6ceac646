#include "resource.hpp"

#include <cstdlib>
#include <cstring>

#include "heap.hpp"
#include "inject.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::uint64_t guard_bytes = 64;
constexpr unsigned char guard_value = 0xA5;

std::byte* allocate(std::uint64_t length, std::uint64_t alignment) {
  const std::uint64_t rounded = (length + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  return static_cast<std::byte*>(memory);
}

Ref<Buffer> new_buffer(Device& device, std::uint64_t length, std::uint64_t bits) {
  const ResourceOptions options{bits};
  if (!valid_new_buffer(device, length, options)) {
    return nullptr;
  }
  if (fails_now(Failure::out_of_memory) || !device.reserve(length)) {
    return nullptr;
  }
  Ref<Buffer> buffer = make<Buffer>(&device, options, length);
  return buffer->memory() != nullptr ? buffer : nullptr;
}

Ref<Buffer> new_buffer_with_bytes(Device& device, const void* bytes, std::uint64_t length,
                                  std::uint64_t bits) {
  if (bytes == nullptr) {
    error("null-argument", text(current_message(), ": the bytes must not be null"));
    return nullptr;
  }
  Ref<Buffer> buffer = new_buffer(device, length, bits);
  if (buffer) {
    std::memcpy(buffer->memory(), bytes, length);
  }
  return buffer;
}

Ref<Buffer> new_buffer_no_copy(Device& device, void* bytes, std::uint64_t length,
                               std::uint64_t bits, Block<void*, std::uint64_t> deallocator) {
  const ResourceOptions options{bits};
  if (!valid_new_buffer(device, length, options)) {
    return nullptr;
  }
  const auto address = reinterpret_cast<std::uint64_t>(bytes);
  if (bytes == nullptr || address % page_bytes != 0 || length % page_bytes != 0) {
    error("no-copy-alignment",
          text(current_message(), ": pointer ", bytes, " and length ", length,
               " must both be multiples of the page size, ", page_bytes, " bytes"));
    return nullptr;
  }
  if (options.storage() == StorageMode::private_) {
    error("storage-mode", text(current_message(), ": memory of the program cannot be private"));
    return nullptr;
  }
  if (fails_now(Failure::out_of_memory) || !device.reserve(length)) {
    return nullptr;
  }
  return make<Buffer>(&device, options, static_cast<std::byte*>(bytes), length,
                      std::move(deallocator));
}

std::uint64_t set_purgeable(Resource&, std::uint64_t) { return 2; }  // was non-volatile
void ignore_marker(Buffer&, String*, Range) {}
void ignore(Buffer&) {}

}  // namespace

bool valid_new_buffer(const Device& device, std::uint64_t length, ResourceOptions options) {
  const std::string where = current_message();
  if (length == 0) {
    error("buffer-length", text(where, ": the length must not be 0"));
  } else if (length > device.profile().max_buffer()) {
    error("buffer-length",
          text(where, ": length ", length, " is over the device's maxBufferLength ",
               device.profile().max_buffer()));
  } else if (options.storage() > StorageMode::private_ || options.cache() > 1 ||
             options.tracking() > 2 || options.bits >= 1u << 10) {
    error("resource-options",
          text(where, ": options ", options.bits, " are not a valid combination for a buffer"));
  } else {
    return true;
  }
  return false;
}

Buffer::Buffer(Ref<Device> device, ResourceOptions options, std::uint64_t length)
    : Resource(std::move(device), options),
      memory_(allocate(length + guard_bytes, length < page_bytes ? 256 : page_bytes)),
      length_(length),
      own_memory_(true) {
  if (memory_ != nullptr) {
    std::memset(memory_, 0, length);
    std::memset(memory_ + length, guard_value, guard_bytes);
  }
}

Buffer::Buffer(Ref<Device> device, ResourceOptions options, std::byte* memory, std::uint64_t length,
               Block<void*, std::uint64_t> deallocator)
    : Resource(std::move(device), options),
      memory_(memory),
      length_(length),
      deallocator_(std::move(deallocator)) {}

Buffer::Buffer(Ref<Device> device, ResourceOptions options, Ref<Heap> heap, std::uint64_t offset,
               std::uint64_t length)
    : Resource(std::move(device), options),
      memory_(heap->memory() + offset),
      length_(length),
      heap_offset_(offset),
      heap_(std::move(heap)) {}

Buffer::~Buffer() {
  if (heap_) {
    heap_->free_range(heap_offset_);
    return;
  }
  device()->give_back(length_);
  if (own_memory_) {
    check_guard();
    std::free(memory_);
  } else if (deallocator_) {
    deallocator_(memory_, length_);
  }
}

void* Buffer::contents() const {
  return options().storage() == StorageMode::private_ ? nullptr : memory_;
}

void Buffer::check_guard() const {
  if (!own_memory_ || memory_ == nullptr) {
    return;
  }
  for (std::uint64_t i = 0; i < guard_bytes; ++i) {
    if (memory_[length_ + i] != std::byte{guard_value}) {
      std::memset(memory_ + length_, guard_value, guard_bytes);
      error("host-out-of-bounds", text("the program wrote behind the end of ", name_for_findings(),
                                       ": length ", length_, ", byte ", length_ + i));
      return;
    }
  }
}

void Buffer::did_modify(Range range) const {
  if (options().storage() != StorageMode::managed) {
    error("storage-mode",
          text(current_message(), ": ", name_for_findings(), " must have managed storage"));
  } else if (range.location + range.length > length_) {
    error("out-of-range", text(current_message(), ": range ", range.location, "+", range.length,
                               " exceeds the length ", length_));
  }
}

void define_resources() {
  Definition<Allocation>("MTLAllocation", class_of<Object>)
      .method<&Allocation::allocated_size>("allocatedSize", {10, 13});
  Definition<Resource>("MTLResource", class_of<Allocation>)
      .method<&Resource::device>("device")
      .method<&Resource::label>("label")
      .method<&Resource::set_label>("setLabel:")
      .method<&Resource::option_bits>("resourceOptions", {10, 15})
      .method<&Resource::storage_mode>("storageMode", {10, 11})
      .method<&Resource::cache_mode>("cpuCacheMode")
      .method<&Resource::tracking_mode>("hazardTrackingMode", {10, 15})
      .method<&set_purgeable>("setPurgeableState:");
  Definition<Buffer>("MTLBuffer", class_of<Resource>)
      .method<&Buffer::length>("length")
      .method<&Buffer::contents>("contents")
      .method<&Buffer::gpu_address>("gpuAddress", {13, 0})
      .method<&Buffer::did_modify>("didModifyRange:")
      .method<&Buffer::heap>("heap", {10, 13})
      .method<&Buffer::heap_offset>("heapOffset", {10, 15})
      .method<&ignore_marker>("addDebugMarker:range:", {10, 12})
      .method<&ignore>("removeAllDebugMarkers", {10, 12});
  Definition<Device>()
      .method<&new_buffer>("newBufferWithLength:options:")
      .method<&new_buffer_with_bytes>("newBufferWithBytes:length:options:")
      .method<&new_buffer_no_copy>("newBufferWithBytesNoCopy:length:options:deallocator:");
  define_heap();
}

}  // namespace softmetal
