// One unit of the forward pass, for every instruction set, and the loop over all units.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/forward.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_plan.hpp"
#include "cpu/decode-inl.h"
#include "cpu/forward-inl.h"
#include "cpu/forward.hpp"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

void forward_unit(const ForwardCall& call, std::int64_t unit, float* scratch) {
  if (is_decode(call.config)) {
    DecodeUnit(call, unit, scratch).run();
  } else {
    ForwardUnit(call, unit, scratch).run();
  }
}

/// Adds up the partial results of one block, in the order of its keys.
void merge_block(const ForwardCall& call, std::int64_t index, float* scratch) {
  merge_partials(call, index, scratch);
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "cpu/thread_pool.hpp"

namespace ingot {
namespace {

HWY_EXPORT(forward_unit);
HWY_EXPORT(merge_block);

// Below this many multiply-adds another thread costs more than it brings.
constexpr double work_of_one_thread = 1 << 20;

int useful_threads(const Problem& p) { return multiply_adds(p) < work_of_one_thread ? 1 : 1 << 20; }

}  // namespace

void run_forward(const Plan& plan, const ForwardArgs& args, ThreadPool& pool,
                 std::span<std::byte> workspace) {
  const Problem& p = plan.problem;
  const Config& config = plan.forward.config;
  ForwardCall call{p,
                   config,
                   args,
                   make_forward_grid(p, config.block_m, config.split_k),
                   make_forward_layout(p.parts, config, simd_lanes()),
                   make_decode_layout(p.parts, config, simd_lanes()),
                   nullptr};
  const std::int64_t scratch_floats =
      is_decode(config) ? call.decode_layout.total : call.layout.total;
  float* const floats = reinterpret_cast<float*>(workspace.data());
  const int threads = std::min(pool.threads(), useful_threads(p));
  const std::int64_t partials = config.split_k > 1 ? partials_floats(call.grid, config) : 0;
  if (partials > 0) call.partials = floats;
  const auto scratch = [&](int worker) { return floats + partials + worker * scratch_floats; };
  const auto unit = HWY_DYNAMIC_DISPATCH(forward_unit);
  pool.run(
      call.grid.units(),
      [&](std::int64_t index, int worker) {
        throw_if_cancelled(args.submission);  // a unit looks again once a tile of keys
        unit(call, index, scratch(worker));
      },
      threads);
  if (partials == 0) return;
  const auto merge = HWY_DYNAMIC_DISPATCH(merge_block);
  pool.run(
      call.grid.blocks,
      [&](std::int64_t index, int worker) {
        throw_if_cancelled(args.submission);
        merge(call, index, scratch(worker));
      },
      threads);
}

}  // namespace ingot
#endif
