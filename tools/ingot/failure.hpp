// How commands of the program fail. main() prints one line and turns the type into an exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace ingot::cli {

/// Something could not be done: a file, a device, a check. Exit code 1.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The command line itself is wrong. Exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// "q.npy: No such file or directory", from the current errno.
std::string errno_text(const std::string& path);

}  // namespace ingot::cli
