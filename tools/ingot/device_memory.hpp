// Arrays in the memory of a CUDA device, through the driver, so that what is timed copies nothing.
#pragma once

#include <string>

#include "array.hpp"

namespace ingot::cli {

/// Has the device memory that the processor cannot read?
bool has_own_memory(const std::string& device);

/// A copy of a packed array in the memory of device "cuda:N". Its context becomes current on this
/// thread. Throws Failure.
Array on_device(const Array& array, const std::string& device);

}  // namespace ingot::cli
