// Which bytes of a bound buffer a dispatch reads, writes and changes atomically.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "../msl/library.hpp"
#include "lazy_array.hpp"

namespace softmetal::exec {

enum class Touch : std::uint8_t { read = 1, write = 2, atomic = 4 };

/// Marked by all workers at once.
class TouchMap {
 public:
  explicit TouchMap(std::size_t bytes) : marks_(bytes) {}

  void touch(std::size_t offset, std::size_t bytes, Touch how) {
    const auto bit = static_cast<std::uint8_t>(how);
    for (std::size_t i = offset; i < offset + bytes; ++i) {
      std::atomic<std::uint8_t>& mark = marks_[i];
      if ((mark.load(std::memory_order_relaxed) & bit) == 0) {
        mark.fetch_or(bit, std::memory_order_relaxed);
      }
    }
  }
  msl::BufferUse summary() const;

 private:
  LazyArray<std::atomic<std::uint8_t>, 4096> marks_;
};

}  // namespace softmetal::exec
