// What Apple's compiler rejects or treats differently and clang here does not.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "library.hpp"

namespace softmetal::msl {

/// All complaints about a text, by line. A text that does not compile gives the compiler's errors
/// too.
std::vector<Diagnostic> lint(std::string_view source, const CompileOptions& options);

}  // namespace softmetal::msl
