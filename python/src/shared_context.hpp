// The devices of the process, shared by every interface of the module.
#pragma once

#include <ingot/ingot.h>

#include <cstdint>

namespace ingot_python {

/// Made at the first call, from any thread, with or without the interpreter's lock; never
/// destroyed, because threads may still run when the interpreter ends. On a failure *context is
/// null and ingot_last_error() says why.
ingot_status shared_context(ingot_context** context);

/// From now on shared_context() is the one of this many threads (0: all that the process may use).
/// Calls under way keep theirs.
ingot_status set_num_threads(std::int32_t num_threads);

}  // namespace ingot_python
