// From preprocessed text to C++ that clang accepts and IR that tells what the kernels are.
#pragma once

#include <string>
#include <vector>

#include "ir.hpp"
#include "source_pass.hpp"

namespace softmetal::msl {

struct FrontEnd {
  LoweredSource source;
  LowerOptions options;  ///< the rewrites that the text needed
  std::string ir;        ///< unoptimised, of all kernels
  std::vector<Diagnostic> warnings;
  bool component_writes = false;  ///< p[i].x = 1 with p in shared memory
};

/// Leaves lowered.cpp and defines.h in `dir`. Throws CompileError.
FrontEnd run_front_end(const std::string& dir, const std::string& preprocessed,
                       const std::string& language_version);

/// LowerOptions as text for the cache.
std::string serialise(const LowerOptions& options);
LowerOptions lower_options(const std::string& text);

}  // namespace softmetal::msl
