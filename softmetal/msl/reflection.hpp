// From what clang computed about kernel parameters to FunctionInfo, and function constants to text.
#pragma once

#include <string>
#include <vector>

#include "ir.hpp"
#include "library.hpp"
#include "source_pass.hpp"

namespace softmetal::msl {

/// Definitions under which a library is compiled to be reflected: constants are left open.
std::string reflection_defines(const LoweredSource& source);
/// Definitions with the values given. Throws CompileError for what is missing or of a wrong type.
std::string constant_defines(const LoweredSource& source, const FunctionInfo& info,
                             const ConstantValues& values);

/// Throws CompileError when a kernel's signature is not one that Metal accepts.
std::vector<FunctionInfo> reflect(const LoweredSource& source, const IrModule& module);
void mark_active(FunctionInfo& info, const ParsedKernel& kernel, const std::vector<int>& words);

std::string join_words(const std::vector<int>& words);
std::vector<int> read_words(const std::string& text);
std::string serialise(const std::vector<FunctionInfo>& infos);
std::vector<FunctionInfo> deserialise(const std::string& text);

}  // namespace softmetal::msl
