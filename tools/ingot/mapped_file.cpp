#include "mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "failure.hpp"

namespace ingot::cli {
namespace {

struct Descriptor {
  int value;
  ~Descriptor() { ::close(value); }
};

}  // namespace

std::string errno_text(const std::string& path) { return path + ": " + std::strerror(errno); }

MappedFile map_file(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait here for a writer.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw Failure(errno_text(path));
  const Descriptor closes{descriptor};
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) throw Failure(errno_text(path));
  if (S_ISDIR(status.st_mode)) throw Failure(path + ": is a directory");
  if (!S_ISREG(status.st_mode)) throw Failure(path + ": is not a regular file");
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes == 0) throw Failure(path + ": is empty");
  void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (address == MAP_FAILED) throw Failure(errno_text(path));
  const auto unmap = [bytes](std::byte* data) { ::munmap(data, bytes); };
  return {std::shared_ptr<std::byte>(static_cast<std::byte*>(address), unmap), bytes};
}

}  // namespace ingot::cli
