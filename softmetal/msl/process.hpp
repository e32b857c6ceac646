// Child processes without a shell.
#pragma once

#include <string>
#include <vector>

namespace softmetal::msl {

struct ProcessResult {
  int status = -1;     ///< exit status; 128 + signal when killed
  std::string output;  ///< stdout and stderr together
};

/// Runs arguments[0] (looked up in PATH) in `directory`. Throws std::runtime_error when it cannot
/// be started.
ProcessResult run_process(const std::vector<std::string>& arguments, const std::string& directory);

}  // namespace softmetal::msl
