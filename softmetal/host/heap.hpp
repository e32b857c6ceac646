// MTLHeap: one allocation that buffers are cut from.
#pragma once

#include <map>

#include "resource.hpp"

namespace softmetal {

class HeapDescriptor : public Object {
 public:
  std::uint64_t size = 0;
  std::uint64_t storage_mode = static_cast<std::uint64_t>(StorageMode::private_);
  std::uint64_t cache_mode = 0;
  std::uint64_t tracking_mode = 0;
  std::int64_t type = 0;  // 0 automatic, 1 placement
  Ref<Object> copy() override;
  std::uint64_t option_bits() const {
    return cache_mode | (storage_mode << 4) | (tracking_mode << 8);
  }
  void set_option_bits(std::uint64_t bits);
};

class Heap : public Allocation {
 public:
  Heap(Ref<Device> device, const HeapDescriptor& descriptor);
  ~Heap() override;
  std::string label_text() const override { return value_of(label_.get()); }
  String* label() const { return label_.get(); }
  void set_label(String* label) { label_ = label; }
  Device* device() const { return device_.get(); }
  std::uint64_t size() const { return size_; }
  std::uint64_t allocated_size() const override { return size_; }
  std::uint64_t used_size() const;
  std::uint64_t max_available(std::uint64_t alignment) const;
  std::uint64_t storage_mode() const { return static_cast<std::uint64_t>(options_.storage()); }
  std::uint64_t option_bits() const { return options_.bits; }
  std::int64_t type() const { return type_; }

  // Automatic placement; null when there is no room.
  Ref<Buffer> new_buffer(std::uint64_t length, std::uint64_t option_bits);
  // Placement heaps: at `offset`, which may overlap other buffers.
  Ref<Buffer> new_buffer_at(std::uint64_t length, std::uint64_t option_bits, std::uint64_t offset);
  std::byte* memory() const { return memory_; }
  void free_range(std::uint64_t offset);

 private:
  bool accepts(std::uint64_t length, std::uint64_t option_bits) const;
  Ref<Device> device_;
  Ref<String> label_;
  ResourceOptions options_;
  std::int64_t type_;
  std::uint64_t size_;
  std::byte* memory_ = nullptr;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> used_;  // offset, end
};

}  // namespace softmetal
