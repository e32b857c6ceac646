#include "residency.hpp"

#include <algorithm>

#include "command_buffer.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

class ResidencyDescriptor : public Object {
 public:
  Ref<String> label;
  std::uint64_t initial_capacity = 0;
};

Ref<ResidencySet> new_set(Device& device, ResidencyDescriptor* descriptor, ErrorSlot) {
  return make<ResidencySet>(&device, descriptor != nullptr ? descriptor->label : Ref<String>());
}

void queue_add(CommandQueue& self, ResidencySet* set) { self.residency_sets.emplace_back(set); }
void queue_remove(CommandQueue& self, ResidencySet* set) {
  std::erase_if(self.residency_sets, [&](const auto& item) { return item.get() == set; });
}
void queue_add_all(CommandQueue& self, ObjectArray sets, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    queue_add(self, element<ResidencySet>(sets, i));
  }
}
void queue_remove_all(CommandQueue& self, ObjectArray sets, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    queue_remove(self, element<ResidencySet>(sets, i));
  }
}
void buffer_use(CommandBuffer& self, ResidencySet* set) { self.residency_sets.emplace_back(set); }

}  // namespace

void ResidencySet::add(Allocation* allocation) {
  if (allocation != nullptr && !contains(allocation)) {
    const std::lock_guard lock(mutex_);
    pending_.emplace_back(allocation);
  }
}

void ResidencySet::add_all(ObjectArray allocations, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    add(element<Allocation>(allocations, i));
  }
}

void ResidencySet::remove(Allocation* allocation) {
  const std::lock_guard lock(mutex_);
  std::erase_if(pending_, [&](const auto& item) { return item.get() == allocation; });
}

void ResidencySet::remove_all_of(ObjectArray allocations, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    remove(element<Allocation>(allocations, i));
  }
}

void ResidencySet::remove_all() {
  const std::lock_guard lock(mutex_);
  pending_.clear();
}

void ResidencySet::commit() {
  const std::lock_guard lock(mutex_);
  committed_ = pending_;
}

bool ResidencySet::contains(Allocation* allocation) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(pending_.begin(), pending_.end(),
                     [&](const auto& item) { return item.get() == allocation; });
}

std::uint64_t ResidencySet::count() const {
  const std::lock_guard lock(mutex_);
  return pending_.size();
}

std::uint64_t ResidencySet::allocated_size() const {
  std::uint64_t sum = 0;
  for (const auto& item : resident()) {
    sum += item->allocated_size();
  }
  return sum;
}

Ref<Array> ResidencySet::all() const {
  const std::lock_guard lock(mutex_);
  return make<Array>(Array::Items(pending_.begin(), pending_.end()));
}

std::vector<Ref<Allocation>> ResidencySet::resident() const {
  const std::lock_guard lock(mutex_);
  return committed_;
}

void define_residency() {
  using S = ResidencySet;
  constexpr OsVersion since{15, 0};
  Definition<ResidencyDescriptor>("MTLResidencySetDescriptor", class_of<Object>)
      .allocatable()
      .property<&ResidencyDescriptor::label>("label", since)
      .property<&ResidencyDescriptor::initial_capacity>("initialCapacity", since);
  Definition<S>("MTLResidencySet", class_of<Object>)
      .method<&S::label>("label", since)
      .method<&S::device>("device", since)
      .method<&S::add>("addAllocation:", since)
      .method<&S::add_all>("addAllocations:count:", since)
      .method<&S::remove>("removeAllocation:", since)
      .method<&S::remove_all_of>("removeAllocations:count:", since)
      .method<&S::remove_all>("removeAllAllocations", since)
      .method<&S::contains>("containsAllocation:", since)
      .method<&S::all>("allAllocations", since)
      .method<&S::count>("allocationCount", since)
      .method<&S::allocated_size>("allocatedSize", since)
      .method<&S::commit>("commit", since)
      .method<&S::nothing>("requestResidency", since)
      .method<&S::nothing>("endResidency", since);
  Definition<Device>().method<&new_set>("newResidencySetWithDescriptor:error:", since);
  Definition<CommandQueue>()
      .method<&queue_add_all>("addResidencySets:count:", since)
      .method<&queue_remove_all>("removeResidencySets:count:", since)
      .method<&queue_add>("addResidencySet:", since)
      .method<&queue_remove>("removeResidencySet:", since);
  Definition<CommandBuffer>().method<&buffer_use>("useResidencySet:", since);
}

}  // namespace softmetal
