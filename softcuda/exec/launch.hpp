// Runs a launch on the threads of the host.
#pragma once

#include "exec/state.hpp"

namespace softcuda {

/// False if it failed; a line on the standard error says why.
bool execute(Launch& launch);

}  // namespace softcuda
