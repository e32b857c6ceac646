// MTLResidencySet: memory that kernels may reach by address.
#pragma once

#include <mutex>
#include <vector>

#include "resource.hpp"

namespace softmetal {

class ResidencySet : public Object {
 public:
  explicit ResidencySet(Ref<Device> device, Ref<String> label)
      : label_(std::move(label)), device_(std::move(device)) {}
  std::string label_text() const override { return value_of(label_.get()); }
  String* label() const { return label_.get(); }
  Device* device() const { return device_.get(); }
  void add(Allocation* allocation);
  void add_all(ObjectArray allocations, std::uint64_t count);
  void remove(Allocation* allocation);
  void remove_all_of(ObjectArray allocations, std::uint64_t count);
  void remove_all();
  void commit();
  bool contains(Allocation* allocation) const;
  std::uint64_t count() const;
  std::uint64_t allocated_size() const;
  Ref<Array> all() const;
  void nothing() {}

  // The buffers and heaps that are resident: those that were there at the last commit.
  std::vector<Ref<Allocation>> resident() const;

 private:
  Ref<String> label_;
  Ref<Device> device_;
  mutable std::mutex mutex_;
  std::vector<Ref<Allocation>> pending_;
  std::vector<Ref<Allocation>> committed_;
};

void define_residency();

}  // namespace softmetal
