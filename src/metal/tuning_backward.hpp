// Block shapes of the backward kernels by GPU family, head_dim and precision, and what they cost.
// Pure functions: no device is needed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/problem.hpp"
#include "metal/caps.hpp"
#include "metal/config.hpp"

namespace ingot::metal {

/// One kernel of the backward pass and how it is launched.
struct BackwardKernel {
  Config config;                              ///< kernel "delta", "backward_dq" or "backward_dkv"
  std::array<std::int64_t, 3> grid{1, 1, 1};  ///< threadgroups
  std::int64_t threads = 0;                   ///< of a threadgroup
  std::int64_t threadgroup_bytes = 0;         ///< static in the kernel; nothing to bind
};

/// delta runs first; dq and dkv need its result and not each other.
struct BackwardChoice {
  BackwardKernel delta, dq, dkv;
  std::optional<BackwardKernel> dbias, dsinks;  ///< where there is a bias, where there are sinks
  std::vector<std::string> why;                 ///< one sentence a decision
};

/// Any head_dim from 1 to 1024, f32, f16 and bf16 in any mixture; the caller has refused the rest.
/// The Configs are for packed, 16-byte aligned tensors.
BackwardChoice choose_backward(const Problem& problem, const DeviceCaps& caps);

/// Grid, threads and memory of a Config of the backward pass.
BackwardKernel backward_kernel(const Config& config, const Problem& problem);

/// Simdgroups that own the same rows; each makes its part of the columns.
std::int64_t column_splits(const Config& config);

/// Rows of the staged slabs that make results, block_dv wide.
std::int64_t wide_rows(const Config& config);

/// Threadgroup memory that the kernel declares, bytes.
std::int64_t backward_threadgroup_bytes(const Config& config);

/// 32-bit registers a thread needs at its widest, estimated from the arrays of the source and 24
/// for addresses and counters.
std::int64_t backward_registers_estimate(const Config& config);

}  // namespace ingot::metal
