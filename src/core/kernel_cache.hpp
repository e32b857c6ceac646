// Where compiled kernels are kept: in memory for a device's life, on disk between processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace ingot {

/// Files of compiled kernels in a private folder. The whole key is stored and compared, so a wrong
/// kernel is never found; a checksum finds damage. Writing is atomic (temporary file, rename);
/// above max_bytes the files unused for longest go. Nothing here throws: without a usable folder
/// every find misses, and unusable() says why. Safe to use from several threads and processes.
class DiskCache {
 public:
  /// folder empty: default_folder(). Created with mode 0700 at the first store.
  explicit DiskCache(std::filesystem::path folder = {}, std::uint64_t max_bytes = 256ULL << 20);

  /// INGOT_CACHE_DIR, else the system's folder for caches; INGOT_CACHE_DIR=off switches it off.
  static std::filesystem::path default_folder();

  std::optional<std::vector<std::byte>> find(std::string_view key) const;
  void store(std::string_view key, std::span<const std::byte> value) const;

  /// Where a file for this key may lie that something else writes (a Metal binary archive); the
  /// folder exists afterwards. Empty where unusable. Counts towards max_bytes.
  std::filesystem::path path_for(std::string_view key, std::string_view extension) const;

  std::string unusable() const;  ///< "" where it works, else why not
  const std::filesystem::path& folder() const { return folder_; }

 private:
  bool prepare() const;
  void trim() const;

  std::filesystem::path folder_;
  std::uint64_t max_bytes_;
};

/// Compiled kernels by key, each made once however many threads ask at the same time. A failure is
/// not kept: the next call tries again.
template <class Kernel>
class KernelCache {
 public:
  using Made = std::shared_ptr<const Kernel>;

  Made get(const std::string& key, const std::function<Made()>& make) {
    std::shared_future<Made> future;
    std::optional<std::promise<Made>> own;  // of the one who makes it; a hit allocates nothing
    {
      const std::lock_guard lock(mutex_);
      const auto [entry, inserted] = kernels_.try_emplace(key);
      if (inserted) entry->second = own.emplace().get_future().share();
      future = entry->second;
    }
    if (!own) return future.get();
    std::promise<Made>& promise = *own;
    try {
      promise.set_value(make());
    } catch (...) {
      {
        const std::lock_guard lock(mutex_);
        kernels_.erase(key);
      }
      promise.set_exception(std::current_exception());
    }
    return future.get();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_future<Made>> kernels_;
};

}  // namespace ingot
