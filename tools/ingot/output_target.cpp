#include "output_target.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "failure.hpp"

namespace ingot::cli {
namespace {

namespace fs = std::filesystem;

#if defined(O_PATH)
constexpr int open_folder = O_PATH | O_DIRECTORY | O_CLOEXEC;
#else
constexpr int open_folder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
#endif

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void require_file(const std::string& path, mode_t mode) {
  if (S_ISDIR(mode)) throw Failure(path + ": is a directory");
  if (!S_ISREG(mode)) throw Failure(path + ": exists and is not a regular file");
}

// The rule of Linux's fs.protected_symlinks: in a folder such as /tmp, a link of another user leads
// to a file that this user never named.
void check_link(const std::string& path, const fs::path& link, const struct stat& status) {
  struct stat folder{};
  const fs::path parent = link.has_parent_path() ? link.parent_path() : ".";
  if (::stat(parent.c_str(), &folder) != 0) throw Failure(errno_text(path));
  const bool shared = (folder.st_mode & S_ISVTX) != 0 && (folder.st_mode & S_IWOTH) != 0;
  if (shared && status.st_uid != ::geteuid() && status.st_uid != folder.st_uid) {
    throw Failure(path + ": is a symbolic link of another user in a folder that all may write");
  }
}

fs::path without_links(const std::string& path) {
  constexpr int most = 40;  // as Linux
  fs::path at = path;
  struct stat status{};
  for (int i = 0; ::lstat(at.c_str(), &status) == 0 && S_ISLNK(status.st_mode); ++i) {
    if (i == most) throw Failure(path + ": too many levels of symbolic links");
    check_link(path, at, status);
    std::error_code error;
    const fs::path to = fs::read_symlink(at, error);
    if (error) throw Failure(path + ": " + error.message());
    at = at.parent_path() / to;
  }
  return at;
}

void check_writable(const OutputTarget& target) {
  // Root may write everything, and still means a file that is read-only to stay.
  if ((target.old->st_mode & 0222) == 0) throw Failure(target.path + ": exists and is read-only");
  if (::faccessat(target.folder.get(), target.name.c_str(), W_OK, AT_EACCESS) != 0) {
    throw Failure(errno_text(target.path));
  }
  const uid_t user = ::geteuid();
  const bool sticky = (target.place.st_mode & S_ISVTX) != 0;
  if (sticky && user != 0 && user != target.old->st_uid && user != target.place.st_uid) {
    throw Failure(target.path + ": is a file of another user in a sticky folder");
  }
}

void check_inputs(const OutputTarget& target, std::span<const std::string> inputs) {
  for (const std::string& input : inputs) {
    struct stat status{};
    if (::stat(input.c_str(), &status) == 0 && is_same_file(status, *target.old)) {
      throw Failure(target.path + ": the output is the same file as the input " + input);
    }
  }
}

}  // namespace

bool OutputTarget::is_same_place(const OutputTarget& other) const {
  return name == other.name && is_same_file(place, other.place);
}

bool OutputTarget::keeps_permissions() const { return old && old->st_uid == ::geteuid(); }

OutputTarget find_target(const std::string& path, std::span<const std::string> inputs) {
  if (path.empty()) throw Failure("an output file has an empty name");
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0) require_file(path, status.st_mode);
  const fs::path file = without_links(path);
  OutputTarget target;
  target.path = path;
  target.name = file.filename().string();
  if (target.name.empty() || target.name == "." || target.name == "..") {
    throw Failure(path + ": names a folder, not a file");
  }
  const fs::path parent = file.has_parent_path() ? file.parent_path() : ".";
  target.folder = Descriptor(::open(parent.c_str(), open_folder));
  if (!target.folder.is_open() || ::fstat(target.folder.get(), &target.place) != 0) {
    throw Failure(errno_text(path));
  }
  target.old = look(target);
  if (target.old) {
    check_writable(target);
    check_inputs(target, inputs);
  }
  return target;
}

std::optional<struct stat> look(const OutputTarget& target) {
  struct stat status{};
  if (::fstatat(target.folder.get(), target.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return std::nullopt;
    throw Failure(errno_text(target.path));
  }
  require_file(target.path, status.st_mode);
  return status;
}

void keep_permissions(int descriptor, const OutputTarget& target) {
  if (!target.keeps_permissions()) return;
  struct stat now{};
  if (::fstat(descriptor, &now) != 0) throw Failure(errno_text(target.path));
  mode_t mode = target.old->st_mode & 0777;
  if (now.st_gid != target.old->st_gid &&
      ::fchown(descriptor, static_cast<uid_t>(-1), target.old->st_gid) != 0) {
    mode &= 0707 | (mode & 07) << 3;  // another group: no more than everybody has
  }
  // Some file systems have one mode for all files; more than asked for is refused.
  if (::fchmod(descriptor, mode) == 0) return;
  const std::string reason = errno_text(target.path);
  if (::fstat(descriptor, &now) != 0 || (now.st_mode & 0777 & ~mode) != 0) throw Failure(reason);
}

}  // namespace ingot::cli
