#include "exec/memory.hpp"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace softcuda {
namespace {

struct Allocation {
  std::size_t bytes;
  int device;
};

std::mutex mutex;
std::map<std::uint64_t, Allocation>& allocations() {
  static auto* const all = new std::map<std::uint64_t, Allocation>;
  return *all;
}

/// The one that an address lies in; the mutex is held.
const std::pair<const std::uint64_t, Allocation>* find(std::uint64_t address) {
  auto after = allocations().upper_bound(address);
  if (after == allocations().begin()) return nullptr;
  --after;
  return address - after->first < after->second.bytes ? &*after : nullptr;
}

}  // namespace

void* allocate_device(std::size_t bytes, int device) {
  constexpr std::size_t granule = 512;
  const std::size_t whole = (bytes + granule - 1) / granule * granule;
  if (whole < bytes) return nullptr;
  void* const memory = std::aligned_alloc(granule, whole);
  if (memory == nullptr) return nullptr;
  std::memset(memory, 0xFF, whole);
  const std::lock_guard lock(mutex);
  allocations()[reinterpret_cast<std::uint64_t>(memory)] = {bytes, device};
  return memory;
}

bool free_device(void* memory) {
  const std::lock_guard lock(mutex);
  const auto found = allocations().find(reinterpret_cast<std::uint64_t>(memory));
  if (found == allocations().end()) return false;
  allocations().erase(found);
  std::free(memory);
  return true;
}

std::optional<int> device_of(std::uint64_t address) {
  const std::lock_guard lock(mutex);
  const auto* const found = find(address);
  if (found == nullptr) return std::nullopt;
  return found->second.device;
}

bool is_device_memory(std::uint64_t address, std::uint64_t bytes) {
  const std::lock_guard lock(mutex);
  const auto* const found = find(address);
  return found != nullptr && address - found->first + bytes <= found->second.bytes;
}

}  // namespace softcuda
