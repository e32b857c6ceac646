// The CPU as a device: "cpu".
#pragma once

#include <memory>

#include "core/backend.hpp"

namespace ingot {

std::unique_ptr<Backend> make_cpu_backend(const ContextOptions& options);

}  // namespace ingot
