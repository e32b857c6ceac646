// Block shapes of the forward kernels by GPU family, head_dim and precision, and what they cost.
// Pure functions: no device is needed.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/problem.hpp"
#include "metal/caps.hpp"
#include "metal/config.hpp"
#include "metal/forward_cost.hpp"

namespace ingot::metal {

/// How one forward pass is launched. The Config is for packed, 16-byte aligned tensors; see
/// specialise_access().
struct ForwardChoice {
  Config config;                              ///< kernel "forward", "forward_wide" or "decode"
  std::array<std::int64_t, 3> grid{1, 1, 1};  ///< threadgroups
  std::int64_t threads = 0;                   ///< of a threadgroup
  std::int64_t threadgroup_bytes = 0;         ///< static in the kernel; nothing to bind
  std::int64_t splits = 1;                    ///< more than 1: "combine" follows
  std::int64_t split_length = 0;              ///< ForwardParams::split_length
  std::int64_t row_blocks = 1;                ///< ForwardParams::row_blocks
  Config combine;                             ///< where splits > 1
  std::array<std::int64_t, 3> combine_grid{1, 1, 1};
  std::int64_t combine_threads = 0;
  std::vector<std::string> why;  ///< one sentence a decision
};

/// Any head_dim from 1 to 1024, f32, f16 and bf16 in any mixture; the caller has refused the rest.
ForwardChoice choose_forward(const Problem& problem, const DeviceCaps& caps);

/// `config` for tensors whose rows all start at multiples of `unit_bytes` (16, 8, 4 or 2) from
/// memory aligned to 16 bytes.
Config specialise_access(Config config, std::int64_t unit_bytes);

/// Sets what Config says of the parts that are on.
void set_parts(Config& config, const Problem& problem, int family);

/// "half" of Dtype::f16 and so on, in memory; before family 9 a bf16 is its bits, "ushort".
TypeName memory_type(Dtype dtype, int family);

/// What both operands of a matrix operation become in registers.
TypeName register_type(Dtype a, Dtype b, int family);

}  // namespace ingot::metal
