// softmetal's own interface, for host programs and tests that know they run on it. C11 and C++17.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- findings -----------------------------------------------------------------------------------
// An error is a use that Metal forbids or that has no defined result; a warning is a defect that a
// Mac would survive (a leak, a missing pool). What happens then is set by SOFTMETAL_FINDINGS:
// "stop" (the default: print; an error ends the program at once, a warning makes its exit status
// 86) or "report" (print only). A handler takes the place of both. SOFTMETAL_IGNORE=rule,rule drops
// findings.
enum { SOFTMETAL_WARNING = 1, SOFTMETAL_ERROR = 2 };

typedef struct softmetal_finding {
  size_t struct_size;
  int severity;
  const char* rule;    // short, stable name, for example "over-release"
  const char* text;    // one line that names everything involved
  const char* kernel;  // "" unless the finding was made inside a kernel, as are the fields below
  uint32_t line;       // line of the kernel's source, 1 based, 0 if unknown
  uint32_t thread[3];  // thread position in the grid
  int32_t buffer;      // buffer index, -1 if none
  uint64_t offset;     // byte offset in that buffer
} softmetal_finding;

typedef void (*softmetal_finding_handler)(const softmetal_finding* finding, void* context);
// The handler runs on the thread that made the finding, one call at a time. Null restores the
// default.
void softmetal_set_finding_handler(softmetal_finding_handler handler, void* context);
// Findings so far under `rule`; null counts all.
size_t softmetal_finding_count(const char* rule);

// Reports every object that the program still owns as a "leak" and returns how many there are.
size_t softmetal_check_leaks(void);

// ---- counters -----------------------------------------------------------------------------------
// What kernels did, exactly, as the compiled kernel does it: a value that the compiler keeps in a
// register is read once. Inside simdgroup operations nothing is counted but the operation itself.
typedef struct softmetal_counters {
  size_t struct_size;  // set by the caller to sizeof(softmetal_counters)
  uint64_t dispatches;
  // With checks and without:
  uint64_t threads;
  uint64_t threadgroups;
  uint64_t matrix_operations;   // 8x8x8 multiply-accumulates of one simdgroup
  uint64_t barriers;            // threadgroup barriers, once a threadgroup
  uint64_t simdgroup_barriers;  // once a simdgroup
  uint64_t simd_operations;     // shuffles, reductions, scans, votes; once a simdgroup
  uint64_t atomics;             // once a thread; a load or store of an atomic is one too
  // Only of dispatches with checks (SOFTMETAL_CHECKS is not "off"). Bytes are those that threads
  // asked for, matrix loads and stores included; an atomic that may write counts as written.
  uint64_t device_bytes_read;
  uint64_t device_bytes_written;
  uint64_t threadgroup_bytes_read;
  uint64_t threadgroup_bytes_written;
  uint64_t constant_bytes_read;
  // Operations by element: four for a vector of four. Floating point: add, subtract, multiply,
  // compare, minimum, maximum, round, convert; a fused multiply-add is two; negation and absolute
  // value are none. Integer: arithmetic, shifts, logic, comparisons, bit counts, but not the
  // addressing of memory. Special: division, remainder, square root, exp, log, sin, pow and the
  // like; rsqrt(x) is two, 1 / sqrt(x).
  uint64_t float_operations;
  uint64_t integer_operations;
  uint64_t special_operations;
  uint64_t checked_dispatches;  // how many of the dispatches ran with checks
} softmetal_counters;

// Sums over the completed dispatches of functions called `kernel` (null: of all functions).
// Returns 0, or -1 when no such function was dispatched.
int softmetal_get_counters(const char* kernel, softmetal_counters* counters);
void softmetal_reset_counters(void);

// ---- injection ----------------------------------------------------------------------------------
// Makes the next `count` occasions fail, after `skip` that succeed. `what` is one of
//   "out-of-memory"    buffer or heap allocation returns nil
//   "compile-failure"  newLibrary... fails with MTLLibraryErrorCompileFailure
//   "pipeline-failure" newComputePipelineState... fails
//   "device-error"     a command buffer ends in MTLCommandBufferErrorPageFault
//   "gpu-out-of-memory" a command buffer ends in MTLCommandBufferErrorOutOfMemory
//   "timeout"          a command buffer ends in MTLCommandBufferErrorTimeout
// The same by environment: SOFTMETAL_INJECT="device-error:SKIP:COUNT,...".
// Returns 0, or -1 for an unknown name.
int softmetal_inject(const char* what, unsigned skip, unsigned count);

// ---- device -------------------------------------------------------------------------------------
// Cores of the device that SOFTMETAL_DEVICE names (Metal itself does not tell).
unsigned softmetal_gpu_core_count(void);

#ifdef __cplusplus
}
#endif
