// Files by descriptor: reading where anything may lie in place of: a FIFO, a folder, a file without
// end.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

namespace ingot {

/// Owns a descriptor; -1 is none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }

  explicit operator bool() const { return number_ >= 0; }
  int number() const { return number_; }
  /// False if the file's end was not written.
  bool close() { return ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_ = -1;
};

struct RegularFile {
  Descriptor descriptor;
  struct stat status{};  ///< of what is open, not of what lies under the name by now

  explicit operator bool() const { return static_cast<bool>(descriptor); }
};

/// The regular file `name` in the folder `folder` (AT_FDCWD: the current one), for reading. Never
/// waits for a FIFO's other end; what is no regular file counts as not there. errno says why.
inline RegularFile open_regular_file(int folder, const char* name, int flags = 0) {
  constexpr int never_wait = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  RegularFile file{Descriptor(::openat(folder, name, never_wait | flags))};
  if (!file || ::fstat(file.descriptor.number(), &file.status) != 0) return {};
  if (S_ISREG(file.status.st_mode)) return file;
  file = {};
  errno = EINVAL;
  return file;
}

/// True for a FIFO, a folder and the like under this name, which dlopen() for one would wait for.
inline bool is_no_regular_file(const char* path) {
  struct stat status{};
  return ::stat(path, &status) == 0 && !S_ISREG(status.st_mode);
}

/// False where the file ends before `bytes` are filled.
inline bool read_fully(const RegularFile& file, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::read(file.descriptor.number(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

/// False where not all could be written, because the disk is full for example.
inline bool write_fully(const Descriptor& file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.number(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace ingot
