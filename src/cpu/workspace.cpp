#include "cpu/workspace.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

#include "core/error.hpp"

namespace ingot {
namespace {

// Buffers kept for calls to come: one per concurrent caller is enough, a few more serve plans of
// different size.
constexpr std::size_t most_kept = 8;

WorkspacePool::Buffer allocate(std::size_t bytes) {
  constexpr std::size_t largest_object = PTRDIFF_MAX;
  void* const data = bytes <= largest_object
                         ? ::operator new[](bytes, std::align_val_t{64}, std::nothrow)
                         : nullptr;
  if (data == nullptr) {
    throw Error(Code::out_of_memory,
                "workspace: cannot allocate " + std::to_string(bytes) + " bytes");
  }
  return {std::unique_ptr<std::byte[], WorkspacePool::Delete>(static_cast<std::byte*>(data)),
          bytes};
}

}  // namespace

WorkspacePool::Lease WorkspacePool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    // The smallest that is large enough.
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->bytes >= bytes && (best == free_.end() || it->bytes < best->bytes)) best = it;
    }
    if (best != free_.end()) {
      Buffer buffer = std::move(*best);
      free_.erase(best);
      return {*this, std::move(buffer)};
    }
  }
  return {*this, allocate(std::max<std::size_t>(bytes, 64))};
}

void WorkspacePool::give_back(Buffer buffer) noexcept {
  if (buffer.data == nullptr) return;
  const std::lock_guard lock(mutex_);
  if (free_.capacity() < most_kept) {
    try {
      free_.reserve(most_kept);
    } catch (const std::bad_alloc&) {
      return;
    }
  }
  if (free_.size() < most_kept) {
    free_.push_back(std::move(buffer));
    return;
  }
  const auto smallest =
      std::min_element(free_.begin(), free_.end(),
                       [](const Buffer& a, const Buffer& b) { return a.bytes < b.bytes; });
  if (smallest->bytes < buffer.bytes) *smallest = std::move(buffer);
}

}  // namespace ingot
