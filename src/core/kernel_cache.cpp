#include "core/kernel_cache.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <system_error>

namespace ingot {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t magic = 0x31'6568'6361'6369ULL;  // "icache1"

struct Header {
  std::uint64_t magic;
  std::uint64_t key_bytes;
  std::uint64_t value_bytes;
  std::uint64_t checksum;  ///< of key and value
};

/// FNV-1a, 64 bits: names files and finds damage; equality is decided on the whole key.
std::uint64_t checksum(std::span<const std::byte> bytes,
                       std::uint64_t hash = 14695981039346656037U) {
  for (const std::byte byte : bytes) {
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 1099511628211U;
  }
  return hash;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string file_name(std::string_view key) {
  constexpr char digits[] = "0123456789abcdef";
  std::string name;
  for (std::uint64_t hash = checksum(bytes_of(key)), i = 0; i < 16; ++i, hash <<= 4) {
    name += digits[hash >> 60];
  }
  return name;
}

bool write_all(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

DiskCache::DiskCache(fs::path folder, std::uint64_t max_bytes)
    : folder_(folder.empty() ? default_folder() : std::move(folder)), max_bytes_(max_bytes) {}

fs::path DiskCache::default_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string chosen = variable("INGOT_CACHE_DIR");
  if (chosen == "off") return {};
  if (!chosen.empty()) return chosen;
  const std::string home = variable("HOME");
#if defined(__APPLE__)
  if (!home.empty()) return fs::path(home) / "Library" / "Caches" / "ingot";
#else
  const std::string caches = variable("XDG_CACHE_HOME");
  if (!caches.empty()) return fs::path(caches) / "ingot";
  if (!home.empty()) return fs::path(home) / ".cache" / "ingot";
#endif
  return {};
}

std::string DiskCache::unusable() const {
  if (folder_.empty()) return "kernel cache: no folder (INGOT_CACHE_DIR=off, or HOME is not set)";
  if (!prepare()) {
    return "kernel cache: the folder must be this user's own and writable by nobody else, got " +
           folder_.string();
  }
  return {};
}

/// The folder exists, is ours, and nobody else can write there.
bool DiskCache::prepare() const {
  if (folder_.empty()) return false;
  struct stat status{};
  if (::stat(folder_.c_str(), &status) != 0) {
    std::error_code error;
    if (folder_.has_parent_path()) fs::create_directories(folder_.parent_path(), error);
    if (::mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) return false;
    if (::stat(folder_.c_str(), &status) != 0) return false;
  }
  return S_ISDIR(status.st_mode) && status.st_uid == ::geteuid() &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0 && ::access(folder_.c_str(), W_OK) == 0;
}

std::optional<std::vector<std::byte>> DiskCache::find(std::string_view key) const {
  if (!prepare()) return std::nullopt;
  const fs::path path = folder_ / (file_name(key) + ".bin");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return std::nullopt;
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::max<std::streamoff>(file.tellg(), 0)));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  Header header{};
  if (!file || bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const std::span<const std::byte> content = std::span(bytes).subspan(sizeof header);
  if (header.magic != magic || header.key_bytes != key.size() || content.size() < key.size() ||
      content.size() - key.size() != header.value_bytes ||
      std::memcmp(content.data(), key.data(), key.size()) != 0 ||
      header.checksum != checksum(content)) {
    return std::nullopt;
  }
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // used now: trim() takes the oldest
  const std::span<const std::byte> value = content.subspan(key.size());
  return std::vector<std::byte>(value.begin(), value.end());
}

void DiskCache::store(std::string_view key, std::span<const std::byte> value) const {
  if (!prepare()) return;
  static std::atomic<unsigned> serial{0};
  const fs::path target = folder_ / (file_name(key) + ".bin");
  const fs::path temporary =
      folder_ / ("write-" + std::to_string(::getpid()) + "-" + std::to_string(serial.fetch_add(1)));
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return;
  const Header header{magic, key.size(), value.size(), checksum(value, checksum(bytes_of(key)))};
  const bool written = write_all(file, std::as_bytes(std::span(&header, 1))) &&
                       write_all(file, bytes_of(key)) && write_all(file, value);
  const bool closed = ::close(file) == 0;
  if (!written || !closed || ::rename(temporary.c_str(), target.c_str()) != 0) {
    ::unlink(temporary.c_str());
  }
  trim();
}

fs::path DiskCache::path_for(std::string_view key, std::string_view extension) const {
  if (!prepare()) return {};
  trim();
  return folder_ / (file_name(key) + std::string(extension));
}

void DiskCache::trim() const {
  struct Entry {
    fs::file_time_type used;
    std::uint64_t bytes;
    fs::path path;
  };
  std::vector<Entry> entries;
  std::uint64_t total = 0;
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(folder_, error)) {
    const std::uint64_t bytes = file.file_size(error);
    if (error) continue;
    entries.push_back({file.last_write_time(error), bytes, file.path()});
    total += bytes;
  }
  if (total <= max_bytes_) return;
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= max_bytes_) break;
    if (fs::remove(entry.path, error)) total -= entry.bytes;
  }
}

}  // namespace ingot
