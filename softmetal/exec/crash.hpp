// What happens when a kernel crashes: a line that names it, and the end of the program.
#pragma once

namespace softmetal::exec {

/// Makes faults inside kernels (SIGSEGV, SIGBUS, SIGFPE, SIGILL) name the kernel. Faults elsewhere
/// go where they went before. Does its work once a process.
void arrange_crash_reports();
/// Gives the calling thread a stack for the handler: a kernel's own may be what has overflown.
void prepare_thread_for_crashes();

}  // namespace softmetal::exec
