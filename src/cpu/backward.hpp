// The backward pass of the CPU back end: dq, dk, dv from q, k, v, o, lse and dout. O(seqlen)
// memory, no atomics, and bits that depend on the problem and the processor alone, never on the
// number of threads or the form.
//
// Two forms. "backward_fused": one unit of work is a (batch, kv head); it visits every tile of
// scores once (5 products) and adds to f32 accumulators of dk and dv in the workspace.
// "backward_two_pass": dq by query blocks, then dk and dv by key blocks (7 products); for few heads
// on many threads, or accumulators beyond the memory cap.
#pragma once

#include <cstddef>
#include <span>

#include "core/plan.hpp"
#include "core/problem.hpp"

namespace ingot {

struct CpuCaps;
class ThreadPool;

/// Pure. Blocks come from the problem and the caches; the form from the number of units and
/// threads, too.
PassPlan plan_backward(const Problem& problem, const CpuCaps& caps);

/// Runs plan.backward. `workspace` holds at least plan.backward.workspace_bytes, is 64-byte aligned
/// and is this call's own until it returns. `pool` runs with at most the number of threads the plan
/// was made for.
void run_backward(const Plan& plan, const BackwardArgs& args, ThreadPool& pool,
                  std::span<std::byte> workspace);

}  // namespace ingot
