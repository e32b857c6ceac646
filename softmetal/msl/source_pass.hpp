// From preprocessed MSL to C++ that clang accepts: kernels, attributes, threadgroup variables,
// function constants, vector constructors and literals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "library.hpp"

namespace softmetal::msl {

/// A kernel's parameter as written.
struct ParsedParameter {
  std::string type;
  std::string name;
  std::string kind;    ///< the attribute: "buffer", "thread_position_in_grid", ...; "" if none
  std::string index;   ///< text of the index of buffer and threadgroup
  std::string active;  ///< name of the function constant that switches it, or ""
  int line = 0;
};

struct ParsedKernel {
  std::string name;        ///< what the host asks for
  std::string expression;  ///< C++ that names the function: ns::f<float, 4>
  std::vector<ParsedParameter> parameters;
  std::uint32_t max_total_threads = 0;  ///< 0: not given
  int line = 0;
};

struct ParsedConstant {
  std::uint32_t index = 0;
  std::string name;
  std::string type;
  bool guarded = false;  ///< is_function_constant_defined() asks for it
  int line = 0;
};

struct LoweredSource {
  std::string text;
  std::vector<ParsedKernel> kernels;
  std::vector<ParsedConstant> constants;
};

/// Throws CompileError with the user's lines for what only this pass can see.
LoweredSource lower_source(std::string_view preprocessed);

/// The number of an argument attribute in softmetal_abi::ArgKind; -1 for unknown names.
int argument_kind(std::string_view attribute);

}  // namespace softmetal::msl
