// Plan: how one problem runs on one device. A pure function of the problem and the device's
// properties.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/literal.hpp"
#include "core/problem.hpp"

namespace ingot {

/// One launch of a kernel that is compiled just in time.
struct KernelPlan {
  std::string file;                           ///< of the kernel, "metal/kernels/forward.metal"
  std::vector<Literal> config;                ///< the literals of its generated `struct Config`
  std::array<std::int64_t, 3> grid{1, 1, 1};  ///< threadgroups or blocks
  std::int64_t threads = 0;                   ///< of one threadgroup or block
  std::int64_t shared_bytes = 0;              ///< dynamic threadgroup or shared memory
};

/// What a back end needs besides to run its own plan; nobody else looks into it.
struct PassDetail {
  virtual ~PassDetail() = default;
};

/// One pass of a plan.
struct PassPlan {
  Config config;                    ///< of the main kernel
  std::int64_t units = 0;           ///< independent pieces of work, the grid
  std::size_t workspace_bytes = 0;  ///< what a caller-supplied workspace must hold
  std::vector<std::string> why;     ///< for `ingot explain`: one sentence per decision
  std::vector<KernelPlan> kernels;  ///< in the order of launch; empty where compiled ahead of time
  std::shared_ptr<const PassDetail> detail;
};

struct Plan {
  Problem problem;
  std::string device;
  PassPlan forward;
  PassPlan backward;
};

/// The text of `ingot explain`.
std::string explain_text(const Plan& plan);
std::string explain_json(const Plan& plan);

}  // namespace ingot
