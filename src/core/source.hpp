// From a kernel file and the literals of its Config to the text that a device compiles.
//
// Kernel files (src/*/kernels, src/algorithm) are real files, built into the library as text. The
// generated part holds literals only: no operator, no control flow, no function name.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/literal.hpp"

namespace ingot {

/// The text of a file below src/, by its path from there. Throws Error(internal) where it is not
/// built in.
std::string_view kernel_file(std::string_view path);

/// `struct Config` with one member a literal. `qualifiers` stands in front of numbers:
/// "static constexpr constant" in MSL, "static constexpr" in CUDA.
std::string emit_config(std::span<const Literal> config, std::string_view qualifiers);

/// The whole text: `prologue` (system includes and what the dialect defines), the Config, then the
/// file with every #include "..." of a built-in file replaced by that file, once each. #line
/// directives keep the compiler's messages at lines of the real files.
std::string assemble_source(std::string_view file, std::span<const Literal> config,
                            std::string_view qualifiers, std::string_view prologue);

}  // namespace ingot
