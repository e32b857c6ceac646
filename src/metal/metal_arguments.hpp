// What a call changes: the run-time arguments of the kernels, and the parts of a Config that follow
// from where the tensors lie.
#pragma once

#include <array>
#include <cstdint>

#include "core/problem.hpp"
#include "metal/config.hpp"
#include "metal/metal_plan.hpp"
#include "metal/params.hpp"

namespace ingot::metal {

/// One tensor of a call.
struct Operand {
  std::array<std::int64_t, 4> extent{};
  Strides stride{};
  std::int64_t element_bytes = 0;
  std::uint64_t address = 0;  ///< of element 0, as far as alignment goes; 0: aligned to anything
};

struct ForwardOperands {
  Operand q, k, v, o;
  bool has_lse = true;
};

struct BackwardOperands {
  Operand q, k, v, o, dout, dq, dk, dv;
};

/// Operands of the plan's problem, at `address` 0; the call's strides, or the densest.
ForwardOperands operands_of(const Problem& problem, const ForwardArgs& args);
BackwardOperands operands_of(const Problem& problem, const BackwardArgs& args);

/// Sets what Config says of layouts, for the tensors that its kernel reads and writes.
Config specialise(Config config, const ForwardOperands& operands);
Config specialise(Config config, const BackwardOperands& operands);

ForwardParams forward_params(const Problem& problem, const ForwardArgs& args,
                             const ForwardDetail& detail);
CombineParams combine_params(const Problem& problem, const ForwardArgs& args,
                             const ForwardDetail& detail);
BackwardParams backward_params(const Problem& problem, const BackwardArgs& args);

}  // namespace ingot::metal
