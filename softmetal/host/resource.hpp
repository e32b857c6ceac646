// Memory: buffers and heaps.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "block.hpp"
#include "device.hpp"
#include "hazard.hpp"

namespace softmetal {

enum class StorageMode : std::uint64_t { shared = 0, managed = 1, private_ = 2, memoryless = 3 };

// MTLResourceOptions, taken apart.
struct ResourceOptions {
  std::uint64_t bits = 0;
  StorageMode storage() const { return static_cast<StorageMode>((bits >> 4) & 15); }
  std::uint64_t cache() const { return bits & 15; }
  std::uint64_t tracking() const { return (bits >> 8) & 3; }
  bool untracked() const { return tracking() == 1; }
};

class Allocation : public Object {
 public:
  virtual std::uint64_t allocated_size() const = 0;
};

class Heap;

class Resource : public Allocation {
 public:
  Resource(Ref<Device> device, ResourceOptions options)
      : device_(std::move(device)), options_(options) {}
  std::string label_text() const override { return value_of(label_.get()); }
  Device* device() const { return device_.get(); }
  String* label() const { return label_.get(); }
  void set_label(String* label) { label_ = label; }
  ResourceOptions options() const { return options_; }
  std::uint64_t option_bits() const { return options_.bits; }
  std::uint64_t storage_mode() const { return static_cast<std::uint64_t>(options_.storage()); }
  std::uint64_t cache_mode() const { return options_.cache(); }
  std::uint64_t tracking_mode() const { return options_.untracked() ? 1 : 2; }

 private:
  Ref<Device> device_;
  Ref<String> label_;
  ResourceOptions options_;
};

class Buffer : public Resource {
 public:
  // Memory of its own, zeroed, with guard bytes behind it.
  Buffer(Ref<Device> device, ResourceOptions options, std::uint64_t length);
  // The program's memory; `deallocator` is called with it at the end.
  Buffer(Ref<Device> device, ResourceOptions options, std::byte* memory, std::uint64_t length,
         Block<void*, std::uint64_t> deallocator);
  // A part of a heap.
  Buffer(Ref<Device> device, ResourceOptions options, Ref<Heap> heap, std::uint64_t offset,
         std::uint64_t length);
  ~Buffer() override;

  std::uint64_t length() const { return length_; }
  std::uint64_t allocated_size() const override { return length_; }
  // What the program sees: nothing for private storage.
  void* contents() const;
  std::byte* memory() const { return memory_; }
  std::uint64_t gpu_address() const { return reinterpret_cast<std::uint64_t>(memory_); }
  void did_modify(Range range) const;
  Heap* heap() const { return heap_.get(); }
  std::uint64_t heap_offset() const { return heap_offset_; }
  // Reports writes of the program behind the end.
  void check_guard() const;

  UseHistory history;  // for untracked hazards

 private:
  std::byte* memory_ = nullptr;
  std::uint64_t length_ = 0;
  std::uint64_t heap_offset_ = 0;
  bool own_memory_ = false;
  Block<void*, std::uint64_t> deallocator_;
  Ref<Heap> heap_;
};

// Checks that Metal makes of every new buffer; reports and returns false when one fails.
bool valid_new_buffer(const Device& device, std::uint64_t length, ResourceOptions options);

}  // namespace softmetal
