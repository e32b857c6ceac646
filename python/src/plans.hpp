// The plans that calls used last.
#pragma once

#include <ingot/ingot.h>

#include <memory>
#include <string>

namespace ingot_python {

/// The devices of the process; throws where they cannot be made.
ingot_context* context();

using PlanHandle = std::shared_ptr<ingot_plan>;

/// Reached with the interpreter's lock. Problems are compared byte by byte, padding too.
PlanHandle plan_for(const std::string& device, const ingot_problem& problem);

}  // namespace ingot_python
