// From the arguments of a call to launches of the plan's kernels.
#pragma once

#include <cstddef>
#include <functional>

#include "core/problem.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/kernels/mma_params.h"
#include "cuda/tickets.hpp"

namespace ingot::cuda {

/// Brings a kernel to the device at its first launch.
using Loader = std::function<const LoadedKernel&(const Step&)>;

struct ForwardCall {
  const Problem& problem;
  const ForwardDetail& detail;
  const ForwardArgs& args;  ///< in memory of the device
  StreamHandle stream;
  Tickets& tickets;
};

struct BackwardCall {
  const Problem& problem;
  const BackwardDetail& detail;
  const BackwardArgs& args;
  StreamHandle stream;
};

/// A tensor as kernels take it that read any strides.
MatrixView view_of(const ConstTensor& tensor, Dtype dtype);

/// The tensors of a problem's parts.
PartViews views_of(const Problem& problem, const PartInputs& inputs);

/// Columns of an output that one aligned store of an accumulator's owner may write: 8 (16-bit
/// types), 2 or 1.
int store_width(const Tensor& out, Dtype dtype);

/// False, and nothing launched, where the copy engine cannot address q, k or v.
bool launch_sm90(const Device& device, const ForwardCall& call, std::byte* workspace,
                 const Loader& load);
/// `run_if`, where given, is read by the kernels: 0 and they do nothing.
void launch_mma(const Device& device, const ForwardCall& call, std::byte* workspace,
                const Loader& load, const int* run_if = nullptr);
/// Fills what `BackwardDetail::statistics` describes, at the start of the workspace. `turns`, where
/// given, becomes 0: a counter for every 64 rows, padded ones too.
void launch_statistics(const Device& device, const BackwardCall& call, std::byte* workspace,
                       const Loader& load, int* turns = nullptr);
/// The form of the plan for Hopper; false, and nothing launched, where there is none or the copy
/// engine cannot address q, k, v or dout.
bool launch_hopper_backward(const Device& device, const BackwardCall& call, std::byte* workspace,
                            const Loader& load);
/// False, and nothing launched, where the copy engine cannot address q, k, v or dout.
bool launch_fused(const Device& device, const BackwardCall& call, std::byte* workspace,
                  const Loader& load);
bool launch_stored(const Device& device, const BackwardCall& call, std::byte* workspace,
                   const Loader& load);
bool launch_unfused(const Device& device, const BackwardCall& call, std::byte* workspace,
                    const Loader& load);
/// `run_if` as above.
void launch_mma_backward(const Device& device, const BackwardCall& call, std::byte* workspace,
                         const Loader& load, const int* run_if = nullptr);

}  // namespace ingot::cuda
