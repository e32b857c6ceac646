#include "core/kernel_cache.hpp"

#include <dirent.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <system_error>

#include "core/environment.hpp"
#include "core/regular_file.hpp"

namespace ingot {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t magic = 0x31'6568'6361'6369ULL;  // "icache1"
constexpr std::uint64_t most_entry_bytes = 64ULL << 20;
constexpr std::time_t stale_seconds = 3600;  // no kernel takes that long to be written

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

// ---- names ----

constexpr std::string_view prefix = "ingot-", entry_suffix = ".bin", temporary_suffix = ".tmp";
constexpr std::size_t digits = 16;

std::string file_name(std::uint64_t hash, std::string_view suffix) {
  char number[digits + 1];
  std::snprintf(number, sizeof number, "%016llx", static_cast<unsigned long long>(hash));
  return std::string(prefix) + number + std::string(suffix);
}

std::string entry_name(std::string_view key) {
  return file_name(checksum(bytes_of(key)), entry_suffix);
}

/// A name that no other thread, process or machine is likely to choose.
std::string temporary_name() {
  static std::atomic<std::uint64_t> serial{0};
  const std::uint64_t parts[] = {
      serial.fetch_add(1), static_cast<std::uint64_t>(::getpid()),
      static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()),
      reinterpret_cast<std::uintptr_t>(&serial)};
  return file_name(checksum(std::as_bytes(std::span(parts))), temporary_suffix);
}

enum class Kind : std::uint8_t { foreign, entry, temporary };

/// What a file is by its name. Version 0.1 wrote HASH.bin and write-PROCESS-SERIAL.
Kind kind_of(std::string_view name) {
  constexpr std::string_view old_temporary = "write-";
  const auto consists_of = [](std::string_view text, const char* characters) {
    return text.find_first_not_of(characters) == std::string_view::npos;
  };
  if (name.starts_with(old_temporary)) {
    name.remove_prefix(old_temporary.size());
    return consists_of(name, "0123456789-") ? Kind::temporary : Kind::foreign;
  }
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  if (!consists_of(name.substr(0, digits), "0123456789abcdef")) return Kind::foreign;
  const std::string_view suffix = name.substr(std::min(digits, name.size()));
  if (suffix == entry_suffix) return Kind::entry;
  return suffix == temporary_suffix ? Kind::temporary : Kind::foreign;
}

// ---- who may have written ----

/// This user, root, and whoever owns "/": that is root where this process is in a user namespace.
bool is_trusted(uid_t owner) {
  struct stat root{};
  return owner == ::geteuid() || owner == 0 || (::stat("/", &root) == 0 && owner == root.st_uid);
}

bool others_may_write(const struct stat& status) {
  return (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

std::string another_owns(const struct stat& status, const fs::path& path) {
  return "user " + std::to_string(status.st_uid) + " owns " + path.string();
}

/// Why other users could put something else in the place of what lies below `path`, "" where they
/// cannot. They can where they own a folder on the way or may write there, unless it is sticky
/// (/tmp) or lies in a folder that they cannot enter. The way up starts at what is open.
std::string exposure(int folder, fs::path path) {
  std::string up = ".", complaint;
  struct stat status{}, below{};
  for (; ::fstatat(folder, up.c_str(), &status, 0) == 0; up += "/..") {
    const bool is_root = status.st_dev == below.st_dev && status.st_ino == below.st_ino;
    if (is_root && up != ".") return complaint;
    if (!is_trusted(status.st_uid)) {
      complaint = another_owns(status, path);
    } else if (others_may_write(status) && (status.st_mode & S_ISVTX) == 0) {
      complaint = "others may write to " + path.string();
    } else if ((status.st_mode & (S_IXGRP | S_IXOTH)) == 0) {
      complaint.clear();
    }
    below = status;
    path = path.parent_path();
  }
  return "cannot be checked: " + path.string();
}

/// Why kernels in this open folder are not to be believed, "" where they are.
std::string distrust(int folder, const fs::path& path) {
  struct stat status{};
  if (::fstat(folder, &status) != 0) return "cannot be checked: " + path.string();
  if (!is_trusted(status.st_uid)) return another_owns(status, path);
  if (others_may_write(status)) return "others may write to " + path.string();
  std::error_code error;
  return exposure(folder, fs::weakly_canonical(path, error));
}

Descriptor open_folder(const fs::path& path) {
  return Descriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC));
}

/// The folder, made with those above it where there is none; none where others could exchange it.
Descriptor open_or_make(const fs::path& path) {
  Descriptor folder = open_folder(path);
  if (folder || errno != ENOENT || !path.has_relative_path()) return folder;
  const Descriptor parent = open_or_make(path.parent_path());
  if (!parent || !exposure(parent.number(), path.parent_path()).empty()) return Descriptor();
  const fs::path name = path.filename();
  if (::mkdirat(parent.number(), name.c_str(), 0700) != 0 && errno != EEXIST) return Descriptor();
  return Descriptor(::openat(parent.number(), name.c_str(),
                             O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
}

bool is_own(int folder) {
  struct stat status{};
  return ::fstat(folder, &status) == 0 && status.st_uid == ::geteuid();
}

// ---- files ----

std::optional<Header> read_header(const RegularFile& file) {
  Header header{};
  if (!read_fully(file, std::as_writable_bytes(std::span(&header, 1))) || header.magic != magic) {
    return std::nullopt;
  }
  return header;
}

/// A new file in the folder, and its name.
Descriptor open_temporary(int folder, std::string& name) {
  constexpr int attempts = 16;
  for (int i = 0; i < attempts; ++i) {
    name = temporary_name();
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    Descriptor file(::openat(folder, name.c_str(), flags, 0600));
    if (file || errno != EEXIST) return file;
  }
  return Descriptor();
}

bool write_entry(Descriptor file, std::string_view key, std::span<const std::byte> value) {
  const Header header{magic, key.size(), value.size(), checksum(value, checksum(bytes_of(key)))};
  return write_fully(file, std::as_bytes(std::span(&header, 1))) &&
         write_fully(file, bytes_of(key)) && write_fully(file, value) &&
         ::fsync(file.number()) == 0 && file.close();
}

std::optional<std::vector<std::byte>> read_entry(const RegularFile& file, std::string_view key) {
  const std::optional<Header> header = read_header(file);
  if (!header || header->key_bytes != key.size() || header->value_bytes > most_entry_bytes ||
      file.status.st_size !=
          static_cast<off_t>(sizeof *header + key.size() + header->value_bytes)) {
    return std::nullopt;
  }
  std::string found(key.size(), '\0');
  std::vector<std::byte> value(header->value_bytes);
  if (!read_fully(file, std::as_writable_bytes(std::span(found))) || found != key ||
      !read_fully(file, value) || checksum(value, checksum(bytes_of(key))) != header->checksum) {
    return std::nullopt;
  }
  return value;
}

std::int64_t nanoseconds_of_use(const struct stat& status) {
#if defined(__APPLE__)
  const timespec& used = status.st_mtimespec;
#else
  const timespec& used = status.st_mtim;
#endif
  return std::int64_t{used.tv_sec} * 1000000000 + used.tv_nsec;
}

struct Entry {
  std::int64_t used;
  std::uint64_t bytes;
  std::string name;
};

/// Calls f(name, kind, file) for every file of this user's that has a name of the cache's.
template <class F>
void for_each_own_file(int folder, F&& f) {
  const int again = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> list(again < 0 ? nullptr : ::fdopendir(again),
                                                 ::closedir);
  if (!list && again >= 0) ::close(again);
  while (const dirent* found = list ? ::readdir(list.get()) : nullptr) {
    const Kind kind = kind_of(found->d_name);
    if (kind == Kind::foreign) continue;
    const RegularFile file = open_regular_file(folder, found->d_name, O_NOFOLLOW);
    if (file && file.status.st_uid == ::geteuid()) f(found->d_name, kind, file);
  }
}

}  // namespace

DiskCache::DiskCache(fs::path folder, std::uint64_t max_bytes)
    : folder_(folder.empty() ? default_folder() : std::move(folder)), max_bytes_(max_bytes) {
  std::error_code error;
  if (!folder_.empty()) folder_ = fs::absolute(folder_, error).lexically_normal();
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // a/b/ is a/b
}

fs::path DiskCache::default_folder() {
  const std::string chosen = environment("INGOT_CACHE_DIR");
  if (chosen == "off") return {};
  if (!chosen.empty()) return chosen;
  const fs::path home = environment("HOME");
#if defined(__APPLE__)
  if (home.is_absolute()) return home / "Library" / "Caches" / "ingot";
#else
  const fs::path caches = environment("XDG_CACHE_HOME");
  if (caches.is_absolute()) return caches / "ingot";
  if (home.is_absolute()) return home / ".cache" / "ingot";
#endif
  return {};
}

std::string DiskCache::unusable() const {
  if (folder_.empty()) return "no kernel cache: INGOT_CACHE_DIR is off, or HOME is not a full path";
  fs::path path = folder_;
  Descriptor folder = open_folder(path);
  const bool is_made = static_cast<bool>(folder);
  while (!folder && errno == ENOENT && path.has_relative_path()) {
    folder = open_folder(path = path.parent_path());
  }
  if (!folder) return "no kernel cache: " + path.string() + ": " + std::strerror(errno);
  const std::string reason =
      is_made ? distrust(folder.number(), path) : exposure(folder.number(), path);
  if (!reason.empty()) return "no kernel cache: " + reason;
  const bool may_store = (!is_made || is_own(folder.number())) &&
                         ::faccessat(folder.number(), ".", W_OK, AT_EACCESS) == 0;
  if (may_store) return {};
  return (is_made ? "kernel cache is only read: cannot write to "
                  : "no kernel cache: cannot write to ") +
         path.string();
}

std::optional<std::vector<std::byte>> DiskCache::find(std::string_view key) const noexcept {
  try {
    if (folder_.empty()) return std::nullopt;
    const Descriptor folder = open_folder(folder_);
    if (!folder || !distrust(folder.number(), folder_).empty()) return std::nullopt;
    const RegularFile file =
        open_regular_file(folder.number(), entry_name(key).c_str(), O_NOFOLLOW);
    if (!file || !is_trusted(file.status.st_uid) || others_may_write(file.status)) {
      return std::nullopt;
    }
    std::optional<std::vector<std::byte>> value = read_entry(file, key);
    if (value) ::futimens(file.descriptor.number(), nullptr);  // used now: trim() takes the oldest
    return value;
  } catch (...) {  // no memory: the compiler says so, or has enough
    return std::nullopt;
  }
}

void DiskCache::store(std::string_view key, std::span<const std::byte> value) const noexcept {
  try {
    const std::uint64_t bytes = sizeof(Header) + key.size() + value.size();
    if (folder_.empty() || bytes > std::min(most_entry_bytes, max_bytes_)) return;
    const Descriptor opened = open_or_make(folder_);
    const int folder = opened.number();
    if (!opened || !distrust(folder, folder_).empty() || !is_own(folder)) return;
    std::string temporary;
    Descriptor file = open_temporary(folder, temporary);
    if (!file) return;
    const std::string target = entry_name(key);
    if (!write_entry(std::move(file), key, value) ||
        ::renameat(folder, temporary.c_str(), folder, target.c_str()) != 0) {
      ::unlinkat(folder, temporary.c_str(), 0);
    }
    const auto taken = static_cast<std::int64_t>(bytes);
    if (room_.fetch_sub(taken) < taken) trim(folder, target);
  } catch (...) {  // no memory: the next process compiles again
    return;
  }
}

/// Deletes what is too much besides the newest file, down to seven eighths so that not every
/// store() comes here, and the temporary files of processes that ended early.
void DiskCache::trim(int folder, std::string_view newest) const {
  std::vector<Entry> entries;
  std::uint64_t total = 0;
  for_each_own_file(folder, [&](const char* name, Kind kind, const RegularFile& file) {
    const auto bytes = static_cast<std::uint64_t>(file.status.st_size);
    if (kind == Kind::entry && read_header(file)) {
      if (newest != name) entries.push_back({nanoseconds_of_use(file.status), bytes, name});
      total += bytes;
    } else if (kind == Kind::temporary && (bytes == 0 || read_header(file)) &&
               file.status.st_mtime < std::time(nullptr) - stale_seconds) {
      ::unlinkat(folder, name, 0);
    }
  });
  const std::uint64_t most = total > max_bytes_ ? max_bytes_ - max_bytes_ / 8 : max_bytes_;
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= most) break;
    if (::unlinkat(folder, entry.name.c_str(), 0) == 0) total -= entry.bytes;
  }
  room_ = static_cast<std::int64_t>(max_bytes_) - static_cast<std::int64_t>(total);
}

}  // namespace ingot
