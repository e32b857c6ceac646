#include "atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "failure.hpp"

namespace ingot::cli {
namespace {

namespace fs = std::filesystem;

// Names the signal handler unlinks; unlink() is one of the few calls it may make.
constexpr std::size_t max_files = 16;
std::array<std::atomic<const char*>, max_files> pending{};

void remove_pending(int signal_number) {
  for (const auto& name : pending) {
    if (const char* path = name.load()) ::unlink(path);
  }
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

void catch_signals() {
  // A file over the size limit shall be an error of write(), not a signal.
  std::signal(SIGXFSZ, SIG_IGN);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    // What the caller ignores, as nohup does, stays ignored.
    if (std::signal(number, remove_pending) == SIG_IGN) std::signal(number, SIG_IGN);
  }
}

std::size_t register_name(const char* name) {
  for (std::size_t slot = 0; slot < max_files; ++slot) {
    const char* expected = nullptr;
    if (pending[slot].compare_exchange_strong(expected, name)) return slot;
  }
  throw Failure("more than 16 output files");
}

std::string resolved(const std::string& path) {
  std::error_code error;
  // Without absolute() a name that does not exist yet stays relative, and ./o.npy differs from
  // o.npy.
  const fs::path target = fs::weakly_canonical(fs::absolute(path), error);
  return error ? path : target.string();
}

void check_target(const std::string& path, const std::string& target,
                  std::span<const std::string> inputs) {
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  if (fs::is_directory(status)) throw Failure(path + ": is a directory");
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw Failure(path + ": exists and is not a regular file");
  }
  for (const std::string& input : inputs) {
    if (fs::equivalent(target, input, error)) {
      throw Failure(path + ": the output is the same file as the input " + input);
    }
  }
}

mode_t wanted_mode(const std::string& target) {
  struct stat status{};
  if (::stat(target.c_str(), &status) == 0) return status.st_mode & 07777;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

OutputFiles::~OutputFiles() { remove_all(); }

std::size_t OutputFiles::add(const std::string& path, std::span<const std::string> inputs) {
  if (path.empty()) throw Failure("an output file has an empty name");
  const std::string target = resolved(path);
  check_target(path, target, inputs);
  for (const File& other : files_) {
    if (other.target == target) throw Failure(path + ": two outputs have the same name");
  }
  catch_signals();
  files_.reserve(max_files);  // the handler's table points into the strings
  if (files_.size() == max_files) throw Failure("more than 16 output files");
  files_.push_back({path, target, target + ".XXXXXX", -1, 0, false});
  File& file = files_.back();
  file.descriptor = ::mkostemp(file.temporary.data(), O_CLOEXEC);
  if (file.descriptor < 0) {
    const std::string reason = errno_text(path);
    files_.pop_back();
    throw Failure(reason);
  }
  file.slot = register_name(file.temporary.c_str());
  ::fchmod(file.descriptor, wanted_mode(target));
  return files_.size() - 1;
}

void OutputFiles::write(std::size_t handle, std::span<const std::byte> bytes) {
  const File& file = files_[handle];
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Failure(errno_text(file.path));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFiles::write(std::size_t handle, const std::string& text) {
  write(handle, std::as_bytes(std::span(text)));
}

void OutputFiles::commit() {
  for (File& file : files_) {
    const int descriptor = file.descriptor;
    file.descriptor = -1;
    // Some file systems report a full disk here only.
    if (::close(descriptor) != 0) throw Failure(errno_text(file.path));
  }
  for (File& file : files_) {
    if (std::rename(file.temporary.c_str(), file.target.c_str()) != 0) {
      const std::string reason = errno_text(file.path);
      remove_all();
      throw Failure(reason);
    }
    pending[file.slot] = nullptr;
    file.renamed = true;
  }
  files_.clear();
}

void OutputFiles::remove_all() noexcept {
  for (const File& file : files_) {
    if (file.descriptor >= 0) ::close(file.descriptor);
    ::unlink(file.renamed ? file.target.c_str() : file.temporary.c_str());
    if (!file.renamed) pending[file.slot] = nullptr;
  }
  files_.clear();
}

}  // namespace ingot::cli
