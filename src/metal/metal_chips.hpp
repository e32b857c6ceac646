// Devices "metal:m1", "metal:m1-max" and so on: chips to plan for that need not be in this machine.
#pragma once

#include <memory>
#include <vector>

#include "core/backend.hpp"

namespace ingot {

/// One device for every chip of metal::known_devices(). They plan and give kernel texts; to run
/// throws Error(unsupported).
std::vector<std::unique_ptr<Backend>> make_metal_chip_backends();

}  // namespace ingot
