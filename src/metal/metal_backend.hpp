// Device "metal:0": an Apple GPU.
#pragma once

#include <memory>
#include <vector>

#include "core/backend.hpp"

namespace ingot {

/// The GPU of this machine where it is of Apple family 7 (M1) or newer, else nothing.
std::vector<std::unique_ptr<Backend>> make_metal_backends();

}  // namespace ingot
