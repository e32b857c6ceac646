#include "rename.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <random>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace ingot::cli {
namespace {

// It does not grow with the name of the output, which may be as long as names can be.
std::string spare_name() {
  static std::mt19937_64 generator{std::random_device{}()};
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "ingot-%016llx.part",
                static_cast<unsigned long long>(generator()));
  return text.data();
}

// Calls f(name), which says whether it worked, until the name is not there already. "" with errno
// of the last call where it did not.
template <class F>
std::string with_spare_name(F&& f) {
  constexpr int tries = 100;
  for (int i = 0; i < tries; ++i) {
    const std::string name = spare_name();
    if (f(name.c_str())) return name;
    if (errno != EEXIST) break;
  }
  return {};
}

#if defined(O_TMPFILE)
// linkat() of a descriptor itself wants a privilege; by its name in /proc it wants none.
std::string name_in_proc(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }

Descriptor create_nameless(int folder, mode_t mode) {
  Descriptor file(::openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, mode));
  const bool can_be_named = file.is_open() && ::access(name_in_proc(file.get()).c_str(), F_OK) == 0;
  return can_be_named ? std::move(file) : Descriptor();
}
#else
Descriptor create_nameless(int, mode_t) { return {}; }
#endif

}  // namespace

Descriptor create_file(int folder, mode_t mode, std::string& name) {
  name.clear();
  Descriptor file = create_nameless(folder, mode);
  if (file.is_open()) return file;
  name = with_spare_name([&](const char* spare) {
    constexpr int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    file = Descriptor(::openat(folder, spare, flags, mode));
    return file.is_open();
  });
  return file;
}

std::string name_file(int folder, int descriptor) {
#if defined(O_TMPFILE)
  return with_spare_name([&](const char* spare) {
    return ::linkat(AT_FDCWD, name_in_proc(descriptor).c_str(), folder, spare, AT_SYMLINK_FOLLOW) ==
           0;
  });
#else
  (void)folder, (void)descriptor;
  errno = ENOSYS;
  return {};
#endif
}

bool exchange_names(int folder, const std::string& a, const std::string& b) {
#if defined(SYS_renameat2)
  constexpr unsigned exchange = 2;  // RENAME_EXCHANGE, which old headers do not have
  return ::syscall(SYS_renameat2, folder, a.c_str(), folder, b.c_str(), exchange) == 0;
#elif defined(RENAME_SWAP)
  return ::renameatx_np(folder, a.c_str(), folder, b.c_str(), RENAME_SWAP) == 0;
#else
  (void)folder, (void)a, (void)b;
  errno = ENOSYS;
  return false;
#endif
}

std::string set_aside(int folder, const std::string& name) {
  const std::string linked = with_spare_name(
      [&](const char* spare) { return ::linkat(folder, name.c_str(), folder, spare, 0) == 0; });
  if (!linked.empty()) return linked;
  const std::string spare = spare_name();
  return ::renameat(folder, name.c_str(), folder, spare.c_str()) == 0 ? spare : std::string();
}

}  // namespace ingot::cli
