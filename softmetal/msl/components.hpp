// p[i].x = 1 in shared memory: to clang a vector that is read, changed and written back, which
// would disturb a thread that writes p[i].y at that time. Here only the component is written.
#pragma once

#include <string>

#include "ir.hpp"

namespace softmetal::msl {

bool writes_components(const IrModule& module);

/// Unoptimised IR with vector accesses of which a part is used made into accesses of that part.
std::string split_components(const IrModule& module);

}  // namespace softmetal::msl
