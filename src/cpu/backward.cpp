// The units of the backward pass, and which instruction set runs them.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/backward.cpp"
#include <hwy/foreach_target.h>

#include "cpu/backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

void backward_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  run_backward_unit(call, unit, scratch);
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "cpu/backward.hpp"
#include "cpu/thread_pool.hpp"

namespace ingot {
namespace {

HWY_EXPORT(backward_unit);

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t key_chunks(const BackwardCall& call) {
  return call.problem.seqlen_k == 0 ? 1 : ceil_div(call.problem.seqlen_k, call.layout.chunk);
}

/// A unit of the fused form, or of the pass that makes dk and dv: a chunk of the keys of one
/// (batch, kv head).
BackwardUnit key_unit(const BackwardCall& call, std::int64_t index, bool dq) {
  const Problem& p = call.problem;
  const std::int64_t chunks = key_chunks(call);
  const std::int64_t head = index / chunks;
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  BackwardUnit unit;
  unit.batch = head / p.num_heads_kv;
  unit.head_kv = head % p.num_heads_kv;
  unit.head_first = unit.head_kv * group;
  unit.head_end = unit.head_first + group;
  unit.row_end = p.seqlen_q;
  unit.col_first = index % chunks * call.layout.chunk;
  unit.col_end = std::min(unit.col_first + call.layout.chunk, p.seqlen_k);
  unit.dq = dq;
  unit.dkv = true;
  return unit;
}

/// A unit of the pass that makes dq: one block of query rows. The last blocks come first: under a
/// causal mask they see the most keys.
BackwardUnit row_unit(const BackwardCall& call, std::int64_t index) {
  const Problem& p = call.problem;
  const std::int64_t blocks = ceil_div(p.seqlen_q, call.layout.block_m);
  const std::int64_t head = index / blocks;
  BackwardUnit unit;
  unit.batch = head / p.num_heads;
  unit.head_first = head % p.num_heads;
  unit.head_end = unit.head_first + 1;
  unit.head_kv = unit.head_first / (p.num_heads / p.num_heads_kv);
  unit.row_first = (blocks - 1 - index % blocks) * call.layout.block_m;
  unit.row_end = std::min(unit.row_first + call.layout.block_m, p.seqlen_q);
  unit.col_end = p.seqlen_k;
  unit.dq = true;
  return unit;
}

}  // namespace

void run_backward(const Plan& plan, const BackwardArgs& args, ThreadPool& pool,
                  std::span<std::byte> workspace) {
  const Problem& p = plan.problem;
  const BackwardLayout layout = backward_layout(p, plan.backward);
  const BackwardCall call{p, args, layout};
  const bool fused = plan.backward.config.kernel == "backward_fused";
  const auto workers =
      static_cast<int>(plan.backward.workspace_bytes / sizeof(float) / layout.total);
  const auto scratch = [&](int worker) {
    return reinterpret_cast<float*>(workspace.data()) + worker * layout.total;
  };

  if (!fused && args.dq.data != nullptr) {
    const std::int64_t units = p.batch * p.num_heads * ceil_div(p.seqlen_q, layout.block_m);
    pool.run(
        units,
        [&](std::int64_t unit, int worker) {
          throw_if_cancelled(args.submission);
          HWY_DYNAMIC_DISPATCH(backward_unit)(call, row_unit(call, unit), scratch(worker));
        },
        workers);
  }
  if (fused || args.dk.data != nullptr || args.dv.data != nullptr) {
    pool.run(
        p.batch * p.num_heads_kv * key_chunks(call),
        [&](std::int64_t unit, int worker) {
          throw_if_cancelled(args.submission);
          HWY_DYNAMIC_DISPATCH(backward_unit)(call, key_unit(call, unit, fused), scratch(worker));
        },
        workers);
  }
}

}  // namespace ingot
#endif  // HWY_ONCE
