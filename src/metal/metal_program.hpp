// From a Config to the text of its kernel.
#pragma once

#include <string>

#include "core/plan.hpp"
#include "metal/config.hpp"

namespace ingot::metal {

/// "metal/kernels/forward.metal". The function in it bears the kernel's name.
std::string kernel_path(const Config& config);

/// Equal for two configurations if their kernels are the same. Cheap: made at every call.
std::string kernel_key(const Config& config);

/// The whole text that the device compiles.
std::string kernel_source(const Config& config);

/// The texts of all kernels of a pass, one after the other, each under a line that names it.
std::string source_of(const Plan& plan, Pass pass);

}  // namespace ingot::metal
