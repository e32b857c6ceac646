#include "registry.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <new>
#include <unordered_map>

#include "object.hpp"

namespace softmetal::registry {
namespace {

constexpr std::size_t retired_objects_kept = 65536;

struct Entry {
  Object* live = nullptr;
  std::string obituary;
};

struct Shard {
  std::mutex mutex;
  std::unordered_map<const void*, Entry> entries;
};

struct Registry {
  std::array<Shard, 32> shards;
  std::mutex retired_mutex;
  std::deque<void*> retired;
};

Registry& instance() {
  static Registry* const registry = new Registry;  // used until the process ends
  return *registry;
}

Shard& shard_of(const void* pointer) {
  const auto bits = reinterpret_cast<std::uintptr_t>(pointer);
  return instance().shards[((bits >> 4) ^ (bits >> 11)) % instance().shards.size()];
}

}  // namespace

void add(Object* object) {
  Shard& shard = shard_of(object);
  const std::lock_guard lock(shard.mutex);
  shard.entries[object] = {object, {}};
}

void bury(const Object* object, std::string obituary) {
  Shard& shard = shard_of(object);
  const std::lock_guard lock(shard.mutex);
  shard.entries[object] = {nullptr, std::move(obituary)};
}

Found find(const void* pointer) {
  Shard& shard = shard_of(pointer);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.entries.find(pointer);
  return found == shard.entries.end() ? Found{} : Found{found->second.live, found->second.obituary};
}

std::vector<Object*> live_objects() {
  std::vector<Object*> all;
  for (Shard& shard : instance().shards) {
    const std::lock_guard lock(shard.mutex);
    for (const auto& [pointer, entry] : shard.entries) {
      if (entry.live != nullptr && entry.live->try_hold()) {
        all.push_back(entry.live);
      }
    }
  }
  return all;
}

void retire_memory(void* memory) {
  void* oldest = nullptr;
  {
    const std::lock_guard lock(instance().retired_mutex);
    instance().retired.push_back(memory);
    if (instance().retired.size() > retired_objects_kept) {
      oldest = instance().retired.front();
      instance().retired.pop_front();
    }
  }
  if (oldest != nullptr) {
    Shard& shard = shard_of(oldest);
    const std::lock_guard lock(shard.mutex);
    shard.entries.erase(oldest);
    ::operator delete(oldest);
  }
}

}  // namespace softmetal::registry
