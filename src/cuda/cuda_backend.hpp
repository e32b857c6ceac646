// Devices "cuda:0", "cuda:1", ...: the NVIDIA GPUs of this machine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace ingot {

/// One back end per GPU; none where there is no driver or no GPU.
std::vector<std::unique_ptr<Backend>> make_cuda_backends();

/// Why there is none: "libcuda.so.1 is not installed". "" where there is one.
std::string cuda_absence();

}  // namespace ingot
