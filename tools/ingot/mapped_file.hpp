// A read-only file in memory without a copy.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace ingot::cli {

struct MappedFile {
  std::shared_ptr<std::byte> data;  ///< unmapped with the last copy
  std::size_t bytes = 0;

  std::span<const std::byte> span() const { return {data.get(), bytes}; }
};

/// Throws Failure "PATH: reason" for what cannot be opened, and for everything but regular files.
MappedFile map_file(const std::string& path);

}  // namespace ingot::cli
