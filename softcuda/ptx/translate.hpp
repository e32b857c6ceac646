// From the PTX of an asm statement to calls of the functions of include/softcuda/ptx*.h.
#pragma once

#include <functional>
#include <string>

#include "ptx/asm_statement.hpp"

namespace softcuda {

/// Whether ptx*.h have a function of this name.
using IsKnown = std::function<bool(const std::string& function)>;

/// A C++ block. Throws std::runtime_error that names an instruction that is not modelled, or what
/// cannot be read.
std::string translate(const AsmStatement& statement, const IsKnown& is_known);

}  // namespace softcuda
