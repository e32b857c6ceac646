// From the arguments of a call to launches of the plan's kernels.
#pragma once

#include <cstddef>
#include <functional>

#include "core/problem.hpp"
#include "cuda/cuda_plan.hpp"

namespace ingot::cuda {

/// Brings a kernel to the device at its first launch.
using Loader = std::function<const LoadedKernel&(const Step&)>;

struct ForwardCall {
  const Problem& problem;
  const ForwardDetail& detail;
  const ForwardArgs& args;  ///< in memory of the device
  StreamHandle stream;
};

struct BackwardCall {
  const Problem& problem;
  const BackwardDetail& detail;
  const BackwardArgs& args;
  StreamHandle stream;
};

/// False, and nothing launched, where the copy engine cannot address q, k or v.
bool launch_sm90(const Device& device, const ForwardCall& call, std::byte* workspace,
                 const Loader& load);
/// `run_if`, where given, is read by the kernels: 0 and they do nothing.
void launch_mma(const Device& device, const ForwardCall& call, std::byte* workspace,
                const Loader& load, const int* run_if = nullptr);
void launch_mma_backward(const Device& device, const BackwardCall& call, std::byte* workspace,
                         const Loader& load);

}  // namespace ingot::cuda
