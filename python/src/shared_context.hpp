// The devices of the process, shared by every interface of the module.
#pragma once

#include <ingot/ingot.h>

namespace ingot_python {

/// Made at the first call, from any thread, with or without the interpreter's lock; never
/// destroyed, because threads may still run when the interpreter ends. On a failure *context is
/// null and ingot_last_error() says why.
ingot_status shared_context(ingot_context** context);

}  // namespace ingot_python
