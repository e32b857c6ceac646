// An asm statement of CUDA C++: its text and its operands.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace softcuda {

struct AsmOperand {
  std::string constraint;  ///< "=r", "+f", "n"
  std::string expression;  ///< C++
  bool is_output() const { return constraint[0] == '=' || constraint[0] == '+'; }
};

struct AsmStatement {
  std::string text;  ///< adjacent literals joined, escapes resolved
  std::vector<AsmOperand> operands;
};

/// Reads a statement whose word `asm` ends at `at`; moves `at` behind its semicolon. Throws
/// std::runtime_error where it is no asm statement.
AsmStatement read_asm(std::string_view source, std::size_t& at);

/// Position behind the string or character literal, or the comment, that starts at `at`; `at` where
/// there is none.
std::size_t skip_literal(std::string_view source, std::size_t at);

}  // namespace softcuda
