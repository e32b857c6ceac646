// Puts checks and counters into optimised IR: every access to memory that other threads or the host
// can see goes through the executor.
#pragma once

#include <string>
#include <vector>

#include "ir.hpp"

namespace softmetal::msl {

struct Instrumented {
  std::string text;
  std::vector<SourcePlace> sites;  ///< by the numbers that the code passes
};

Instrumented instrument(const IrModule& module);

/// The module's text with a function that tells where threadgroup variables are, and a gap after
/// each of them. `variables` are those that the kernel uses.
std::string with_region_table(std::string text, const std::vector<ThreadgroupVariable>& variables);

}  // namespace softmetal::msl
