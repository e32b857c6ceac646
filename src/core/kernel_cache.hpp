// Where compiled kernels are kept: in memory for a device's life, on disk between processes.
#pragma once

#include <atomic>
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
/// kernel is never found; a checksum finds damage. Writing is atomic (temporary file, rename), also
/// where the machine stops.
///
/// A kernel is code that this process will run, so nobody but this user and root may have written
/// it: the folder and the file must be theirs and writable by nobody else, and no other user may be
/// able to exchange a folder above. All of that is checked on what is open, not on a name. Only the
/// folder's owner stores (a root that runs in a user's home leaves nothing there); a folder that
/// cannot be written, of an image for example, is read.
///
/// Only files with a name and a header of its own are ever deleted. find() and store() do not
/// throw: what goes wrong there is a miss, and the kernel is compiled. unusable() says why nothing
/// is kept. Safe to use from several threads and processes.
class DiskCache {
 public:
  /// folder empty: default_folder(). Created with mode 0700 at the first store. Above max_bytes the
  /// files unused for longest go; other processes that store are noticed with a delay.
  explicit DiskCache(std::filesystem::path folder = {}, std::uint64_t max_bytes = 256ULL << 20);

  /// INGOT_CACHE_DIR, else the system's folder for caches: ingot in XDG_CACHE_HOME or ~/.cache,
  /// ~/Library/Caches on a Mac. Empty, that is no cache, with INGOT_CACHE_DIR=off or without a
  /// home. Of these only INGOT_CACHE_DIR may be relative, to the folder current now.
  static std::filesystem::path default_folder();

  std::optional<std::vector<std::byte>> find(std::string_view key) const noexcept;
  void store(std::string_view key, std::span<const std::byte> value) const noexcept;

  /// "" where kernels are found and stored, else one line that says why not.
  std::string unusable() const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  void trim(int folder, std::string_view newest) const;

  std::filesystem::path folder_;
  std::uint64_t max_bytes_;
  mutable std::atomic<std::int64_t> room_{0};  ///< to be stored before the folder is read again
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
      if (const auto entry = kernels_.find(key); entry != kernels_.end()) {
        future = entry->second;
      } else {
        future = own.emplace().get_future().share();
        kernels_.emplace(key, future);
      }
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
