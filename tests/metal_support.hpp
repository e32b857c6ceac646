// What tests of the Metal host share. They run on a Mac, and on softmetal, where failures can be
// made to order.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "metal/device/device.hpp"
#if defined(INGOT_METAL_IN_SOFTWARE)
#include <softmetal/softmetal.h>
#endif

namespace ingot::metal {

/// A folder of its own for compiled kernels, instead of the user's, while this lives.
class CacheFolder {
 public:
  CacheFolder() {
    std::string name =
        (std::filesystem::temp_directory_path() / "ingot-metal-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    const char* before = ::getenv("INGOT_CACHE_DIR");
    if (before != nullptr) before_ = before;
    ::setenv("INGOT_CACHE_DIR", folder_.c_str(), 1);
  }
  ~CacheFolder() {
    if (before_.empty()) ::unsetenv("INGOT_CACHE_DIR");
    if (!before_.empty()) ::setenv("INGOT_CACHE_DIR", before_.c_str(), 1);
    std::filesystem::remove_all(folder_);
  }
  CacheFolder(const CacheFolder&) = delete;
  CacheFolder& operator=(const CacheFolder&) = delete;

  const std::filesystem::path& path() const { return folder_; }

  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> found;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      found.push_back(file.path());
    }
    return found;
  }

 private:
  std::filesystem::path folder_;
  std::string before_;
};

/// Bytes at an address that is a multiple of 64 and of no page, all ones, which as f32 is NaN.
class HostWorkspace {
 public:
  explicit HostWorkspace(std::size_t bytes) : bytes_(bytes), memory_(bytes + 16384) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    start_ = memory_.data() + (16384 + 64 - address % 16384) % 16384;
    std::memset(start_, 0xFF, bytes);
  }
  void* data() { return start_; }
  std::size_t bytes() const { return bytes_; }

  /// Floats that were written.
  std::size_t written() const {
    std::vector<float> values(bytes_ / sizeof(float));
    std::memcpy(values.data(), start_, values.size() * sizeof(float));
    return static_cast<std::size_t>(
        std::ranges::count_if(values, [](float x) { return !std::isnan(x); }));
  }

 private:
  std::size_t bytes_;
  std::vector<std::byte> memory_;
  std::byte* start_ = nullptr;
};

/// What f throws, or Code::ok.
template <class F>
Error thrown_by(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  return Error(Code::ok, "");
}

/// The next `count` occasions fail, after `skip` that do not; false where failures are not to
/// order.
inline bool inject(const char* what, unsigned skip = 0, unsigned count = 1) {
#if defined(INGOT_METAL_IN_SOFTWARE)
  return softmetal_inject(what, skip, count) == 0;
#else
  (void)what, (void)skip, (void)count;
  return false;
#endif
}

#define INGOT_SKIP_UNLESS(condition, why) \
  if (!(condition)) GTEST_SKIP() << (why)

}  // namespace ingot::metal
