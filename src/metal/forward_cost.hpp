// What a forward kernel of a Config needs of a core, from the arrays of its source.
#pragma once

#include <cstdint>

#include "metal/config.hpp"

namespace ingot::metal {

/// Threadgroup memory, bytes. Exact: the kernel's own sum.
std::int64_t threadgroup_bytes(const Config& config);

/// 32-bit registers of a thread where it has most alive, and 24 for addresses and counters. Apple
/// GPUs have 128.
std::int64_t registers_estimate(const Config& config);

}  // namespace ingot::metal
