// Comparisons of vectors: bool vectors in MSL, integer vectors to clang.
#pragma once

#include <set>
#include <string>

#include "ir.hpp"

namespace softmetal::msl {

/// Where the user's text compares vectors, by unoptimised IR.
std::set<TextPlace> vector_comparisons(const IrModule& module);

/// The text with the comparisons at `places` made to give bool vectors.
std::string with_bool_comparisons(const std::string& text, const std::set<TextPlace>& places);

}  // namespace softmetal::msl
