// Faults of a kernel's own memory accesses: an error of the launch, not the end of the process.
#pragma once

namespace softcuda {

/// Of the process, once; and of the calling thread of the host, which gets a stack for signals.
void catch_faults();

}  // namespace softcuda
