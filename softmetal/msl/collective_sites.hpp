// Simdgroup operations and barriers know the line and column that called them, but not the file.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "ir.hpp"

namespace softmetal::msl {

/// The files of places outside of the main text, by the number that their calls pass.
std::map<std::uint32_t, std::string> collective_files(const IrModule& module);

}  // namespace softmetal::msl
