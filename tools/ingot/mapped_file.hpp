// A read-only file in memory without a copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "descriptor.hpp"

namespace ingot::cli {

struct MappedFile {
  std::string path;
  std::shared_ptr<std::byte> data;  ///< unmapped with the last copy
  std::size_t bytes = 0;
  std::shared_ptr<const Descriptor> descriptor;
  std::pair<std::int64_t, std::int64_t> changed;  ///< when the file was written last

  std::span<const std::byte> span() const { return {data.get(), bytes}; }
  /// Throws Failure "PATH: reason" where the file has been written or cut since it was mapped: what
  /// was read of it may be of both states.
  void require_unchanged() const;
};

/// Throws Failure "PATH: reason" for what cannot be opened, and for everything but regular files.
MappedFile map_file(const std::string& path);

}  // namespace ingot::cli
