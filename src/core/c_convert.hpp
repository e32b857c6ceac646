// The structures of ingot.h as core's aggregates; defaults are resolved here.
#pragma once

#include "core/problem.hpp"
#include "ingot/ingot.h"

namespace ingot {

Problem to_problem(const ingot_problem& c);
ForwardArgs to_args(const ingot_forward_args& c);
BackwardArgs to_args(const ingot_backward_args& c);

}  // namespace ingot
