// Sums of kernel counters, for softmetal_get_counters.
#pragma once

#include <string>

#include "msl/library.hpp"

namespace softmetal {

void count_dispatch(const std::string& kernel, const msl::Counters& counters, bool checked);

}  // namespace softmetal
