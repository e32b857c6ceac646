#include "mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "descriptor.hpp"
#include "failure.hpp"
#include "process.hpp"

namespace ingot::cli {
namespace {

std::pair<std::int64_t, std::int64_t> last_write(const struct stat& status) {
#if defined(__APPLE__)
  return {status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec};
#else
  return {status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
#endif
}

}  // namespace

std::string errno_text(const std::string& path) { return path + ": " + std::strerror(errno); }

MappedFile map_file(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait here for a writer.
  const auto file =
      std::make_shared<const Descriptor>(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (!file->is_open() || ::fstat(file->get(), &status) != 0) throw Failure(errno_text(path));
  if (S_ISDIR(status.st_mode)) throw Failure(path + ": is a directory");
  if (!S_ISREG(status.st_mode)) throw Failure(path + ": is not a regular file");
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes == 0) throw Failure(path + ": is empty");
  void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file->get(), 0);
  if (address == MAP_FAILED) throw Failure(errno_text(path));
  const auto watched = std::make_shared<WatchedMapping>(address, bytes, path);
  const auto unmap = [bytes, watched](std::byte* data) { ::munmap(data, bytes); };
  return {path, std::shared_ptr<std::byte>(static_cast<std::byte*>(address), unmap), bytes, file,
          last_write(status)};
}

void MappedFile::require_unchanged() const {
  struct stat status{};
  if (::fstat(descriptor->get(), &status) != 0) throw Failure(errno_text(path));
  if (static_cast<std::size_t>(status.st_size) != bytes || last_write(status) != changed) {
    throw Failure(path + ": was changed while it was read");
  }
}

}  // namespace ingot::cli
