// The stages of compiling MSL with clang; each is one child process.
#pragma once

#include <string>
#include <vector>

#include "library.hpp"

namespace softmetal::msl {

/// MSL text to preprocessed text, in `dir`. Throws CompileError.
std::string preprocess(const std::string& dir, std::string_view source,
                       const CompileOptions& options);

/// How to compile dir/lowered.cpp with dir/defines.h.
struct IrOptions {
  int kernel = -1;            ///< the one to make an entry for; -1: reflect all, unoptimised
  bool instrumented = false;  ///< made ready for instrument()
  bool optimised = true;      ///< false: as clang writes it for optimise_ir()
  std::string language_version;
};

/// Gives IR text, which is also left in dir/kernel.ll.
std::string compile_to_ir(const std::string& dir, const IrOptions& options,
                          std::vector<Diagnostic>* warnings);

/// IR text that was compiled with IrOptions::optimised = false, optimised.
std::string optimise_ir(const std::string& dir, const std::string& ir);

/// "SOFTMETAL_LAYOUT n": which layout cooperative tensors have, by SOFTMETAL_COOPERATIVE_LAYOUT (m5
/// or other).
std::string layout_define();

/// IR text to dir/kernel.so.
void link_ir(const std::string& dir, const std::string& ir);

/// What a cached result depends on besides its input: compiler, flags and standard library.
const std::string& toolchain_key();

}  // namespace softmetal::msl
