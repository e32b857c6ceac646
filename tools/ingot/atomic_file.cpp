#include "atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "failure.hpp"
#include "rename.hpp"

namespace ingot::cli {
namespace {

constexpr std::size_t max_files = 16;

bool synced(int descriptor) {
#if defined(F_FULLFSYNC)
  if (::fcntl(descriptor, F_FULLFSYNC) == 0) return true;
#endif
  // Some file systems cannot, and say so.
  return ::fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS;
}

bool rename_within(int folder, const std::string& from, const std::string& to) {
  return ::renameat(folder, from.c_str(), folder, to.c_str()) == 0;
}

// The new names survive a crash of the machine, too. The files are in place whatever this says.
void sync_folder(const OutputTarget& target) {
  const Descriptor folder(::openat(target.folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.is_open()) synced(folder.get());
}

}  // namespace

OutputFiles::~OutputFiles() {
  const SignalHold hold;
  take_back_all();
  files_.clear();
}

std::size_t OutputFiles::add(const std::string& path, std::span<const std::string> inputs) {
  if (files_.size() == max_files) throw Failure("more than 16 output files");
  File file;
  file.target = find_target(path, inputs);
  for (const File& other : files_) {
    if (other.target.is_same_place(file.target)) {
      throw Failure(path + ": two outputs have the same name");
    }
  }
  const SignalHold hold;
  const int folder = file.target.folder.get();
  const mode_t mode = file.target.keeps_permissions() ? file.target.old->st_mode & 0777 : 0666;
  file.descriptor = create_file(folder, mode, file.spare);
  if (!file.descriptor.is_open()) throw Failure(errno_text(path));
  files_.push_back(std::move(file));
  File& added = files_.back();
  try {
    if (!added.spare.empty()) {
      added.removed_by_signals = std::make_unique<TemporaryName>(folder, added.spare);
    }
    keep_permissions(added.descriptor.get(), added.target);
  } catch (...) {
    take_back(added);
    files_.pop_back();
    throw;
  }
  return files_.size() - 1;
}

void OutputFiles::write(std::size_t handle, std::span<const std::byte> bytes) {
  const File& file = files_[handle];
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.descriptor.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Failure(errno_text(file.target.path));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFiles::write(std::size_t handle, const std::string& text) {
  write(handle, std::as_bytes(std::span(text)));
}

void OutputFiles::commit() {
  for (File& file : files_) {
    const int descriptor = file.descriptor.get();
    if (!synced(descriptor) || ::fstat(descriptor, &file.identity) != 0) {
      throw Failure(errno_text(file.target.path));
    }
  }
  const SignalHold hold;
  try {
    for (File& file : files_) {
      file.removed_by_signals.reset();  // from here on a spare name may be that of an old file
      const int folder = file.target.folder.get();
      if (file.spare.empty()) file.spare = name_file(folder, file.descriptor.get());
      // Some file systems report a full disk here only.
      if (file.spare.empty() || !file.descriptor.close()) {
        throw Failure(errno_text(file.target.path));
      }
    }
    for (File& file : files_) put_in_place(file, &file == &files_.back());
  } catch (const Failure& failure) {
    throw Failure(failure.what() + take_back_all());
  }
  // All at once: only what no signal can wait for, as SIGKILL, leaves a name in between.
  for (const File& file : files_) {
    if (!file.spare.empty()) ::unlinkat(file.target.folder.get(), file.spare.c_str(), 0);
  }
  for (const File& file : files_) sync_folder(file.target);
  files_.clear();
}

// After the last one nothing can fail any more: one step replaces the old file. Before, that is
// kept under the spare name.
void OutputFiles::put_in_place(File& file, bool is_last) {
  const OutputTarget& target = file.target;
  const int folder = target.folder.get();
  const bool keeps_old = look(target).has_value() && !is_last;
  if (keeps_old && exchange_names(folder, file.spare, target.name)) {
    file.in_place = true;
    return;
  }
  if (keeps_old && errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
    throw Failure(errno_text(target.path));
  }
  std::string old;
  if (keeps_old) {
    old = set_aside(folder, target.name);
    if (old.empty()) throw Failure(errno_text(target.path));
  }
  if (!rename_within(folder, file.spare, target.name)) {
    const std::string reason = errno_text(target.path);
    // Where it has got a second name, this does nothing but take it away again.
    if (!old.empty() && !rename_within(folder, old, target.name)) {
      throw Failure(reason + "; the old file is now " + old);
    }
    if (!old.empty()) ::unlinkat(folder, old.c_str(), 0);
    throw Failure(reason);
  }
  file.spare = old;
  file.in_place = true;
}

// Gives back what was there. Returns what a message has to add.
std::string OutputFiles::take_back(File& file) {
  const int folder = file.target.folder.get();
  if (!file.in_place) {
    if (!file.spare.empty()) ::unlinkat(folder, file.spare.c_str(), 0);
    return {};
  }
  if (!file.spare.empty()) {
    if (rename_within(folder, file.spare, file.target.name)) return {};
    return "; the old " + file.target.path + " is now " + file.spare;
  }
  struct stat now{};
  const char* name = file.target.name.c_str();
  const bool is_ours = ::fstatat(folder, name, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
                       now.st_ino == file.identity.st_ino && now.st_dev == file.identity.st_dev;
  if (is_ours) ::unlinkat(folder, name, 0);
  return {};
}

std::string OutputFiles::take_back_all() {
  std::string lost;
  for (std::size_t i = files_.size(); i > 0; --i) lost += take_back(files_[i - 1]);
  files_.clear();
  return lost;
}

}  // namespace ingot::cli
