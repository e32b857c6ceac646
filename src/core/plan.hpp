// Plan: how one problem runs on one device. A pure function of the problem and the device's
// properties.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/problem.hpp"

namespace ingot {

/// One pass of a plan.
struct PassPlan {
  Config config;
  std::int64_t units = 0;           ///< independent pieces of work, the grid
  std::size_t workspace_bytes = 0;  ///< what a caller-supplied workspace must hold
  std::vector<std::string> why;     ///< for `ingot explain`: one sentence per decision
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
