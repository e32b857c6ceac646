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
  bool pointer = false;    ///< the expression is a pointer to it already
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

/// Rewrites that few programs need and that cost the others time; tried when clang asks for them.
struct LowerOptions {
  bool conditionals = false;  ///< operands of ?: that are structs in memory are copied out
  bool braced_lists = false;  ///< f({x, y, z}) with a vector parameter
  friend bool operator==(const LowerOptions&, const LowerOptions&) = default;
};

/// Throws CompileError with the user's lines for what only this pass can see.
LoweredSource lower_source(std::string_view preprocessed, const LowerOptions& options = {});

/// The number of an argument attribute in softmetal_abi::ArgKind; -1 for unknown names.
int argument_kind(std::string_view attribute);

}  // namespace softmetal::msl
