// From the plan of a Metal device, as `ingot explain --json` tells it, to what the model looks at.
#pragma once

#include <nlohmann/json.hpp>

#include "model.hpp"

namespace ingot::cli {

/// The shape of the kernel that the plan runs for problem.kernel. Throws Failure where the plan has
/// none.
KernelShape planned_shape(const nlohmann::ordered_json& plan, const KernelProblem& problem);

}  // namespace ingot::cli
