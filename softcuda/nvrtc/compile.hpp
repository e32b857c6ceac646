// The host's compiler, run as a child.
#pragma once

#include <string>
#include <vector>

namespace softcuda {

struct Options {
  std::string arch;  ///< "sm_90a"
  std::string standard = "c++17";
};

struct Compilation {
  bool succeeded = false;
  std::vector<char> object;  ///< a shared object
  std::string log;
};

/// The text that stands in front of every kernel: include/softcuda.
const std::string& prelude();

Compilation compile(const std::string& source, const std::string& name, const Options& options);

}  // namespace softcuda
