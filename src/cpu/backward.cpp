// The units of the backward pass, and which instruction set runs them.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/backward.cpp"
#include <hwy/foreach_target.h>

#include "cpu/backward-inl.h"
#include "cpu/backward_parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

void backward_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  run_backward_unit(call, unit, scratch);
}

void bias_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  BiasWorker(call, unit, scratch).run();
}

void clear_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch) {
  clear_dbias(call, unit, scratch);
}

void sinks_unit(const BackwardCall& call, std::int64_t head, float* scratch) {
  run_sinks_unit(call, head, scratch);
}

void lse_unit(const BackwardCall& call, const BackwardUnit& unit, float* scratch,
              float* split_lse) {
  run_lse_unit(call, unit, scratch, split_lse);
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "core/operands.hpp"
#include "cpu/backward.hpp"
#include "cpu/thread_pool.hpp"

namespace ingot {
namespace {

HWY_EXPORT(backward_unit);
HWY_EXPORT(lse_unit);
HWY_EXPORT(bias_unit);
HWY_EXPORT(clear_unit);
HWY_EXPORT(sinks_unit);

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

/// Pieces of dbias: blocks of rows of each of its heads.
struct BiasGrid {
  std::int64_t batch = 0, heads = 0, row_blocks = 0;
  bool direct = false;  // not broadcast: the units that make dq or dk write it

  explicit BiasGrid(const BackwardCall& call) {
    const Shape& shape = call.problem.parts.bias_shape;
    if (call.args.dbias.data == nullptr || count_of(shape) == 0) return;
    batch = shape[0];
    heads = shape[1];
    direct = shape == pair_shape(call.problem);
    row_blocks = shape[2] == 1 && !direct ? 1 : ceil_div(shape[2], call.layout.block_m);
  }
  std::int64_t units() const { return batch * heads * row_blocks; }

  BackwardUnit unit(const BackwardCall& call, std::int64_t index) const {
    const Problem& p = call.problem;
    BackwardUnit unit;
    unit.row_first = index % row_blocks * call.layout.block_m;
    const bool one_row = p.parts.bias_shape[2] == 1 && !direct;
    unit.row_end =
        one_row ? p.seqlen_q : std::min(unit.row_first + call.layout.block_m, p.seqlen_q);
    unit.head_first = index / row_blocks % heads;
    unit.batch = index / row_blocks / heads;
    return unit;
  }
};

bool has_large_lse(const Problem& p, const BackwardArgs& args) {
  if (p.seqlen_q == 0 || p.seqlen_k == 0) return false;
  const ConstTensor& lse = args.lse;
  bool any = false;
  for (std::int64_t b = 0; b < p.batch && !any; ++b) {
    for (std::int64_t h = 0; h < p.num_heads && !any; ++h) {
      const float* const row =
          static_cast<const float*>(lse.data) + b * lse.stride[0] + h * lse.stride[1];
      for (std::int64_t s = 0; s < p.seqlen_q; ++s) {
        if (s % (1 << 16) == 0) throw_if_cancelled(args.submission);
        any |= is_large_lse(row[s * lse.stride[2]]);
      }
    }
  }
  return any;
}

}  // namespace

void run_backward(const Plan& plan, const BackwardArgs& args, ThreadPool& pool,
                  std::span<std::byte> workspace) {
  const Problem& p = plan.problem;
  const BackwardLayout layout = backward_layout(p, plan.backward);
  BackwardCall call{p, args, layout};
  const bool fused = plan.backward.config.kernel == "backward_fused";
  float* const floats = reinterpret_cast<float*>(workspace.data());
  const auto size = static_cast<std::int64_t>(plan.backward.workspace_bytes / sizeof(float));
  const auto workers = static_cast<int>((size - split_lse_floats(p)) / layout.total);
  const auto scratch = [&](int worker) {
    return floats + split_lse_floats(p) + worker * layout.total;
  };
  const std::int64_t row_units = p.batch * p.num_heads * ceil_div(p.seqlen_q, layout.block_m);

  // What has no element is not wanted, either: no number of heads or batch entries makes it work.
  const bool dq = args.dq.data != nullptr && p.seqlen_q > 0;
  const bool dkv = (args.dk.data != nullptr || args.dv.data != nullptr) && p.seqlen_k > 0;
  const BiasGrid bias(call);
  if ((dq || dkv || bias.units() > 0) && has_large_lse(p, args)) {
    pool.run(
        row_units,
        [&](std::int64_t unit, int worker) {
          throw_if_cancelled(args.submission);
          HWY_DYNAMIC_DISPATCH(lse_unit)(call, row_unit(call, unit), scratch(worker), floats);
        },
        workers);
    call.split_lse = floats;
  }
  if (bias.direct && plan.backward.config.masked) {  // else every pair is in a tile
    pool.run(
        bias.units(),
        [&](std::int64_t unit, int worker) {
          HWY_DYNAMIC_DISPATCH(clear_unit)(call, bias.unit(call, unit), scratch(worker));
        },
        workers);
  }
  const bool bias_by_keys = bias.direct && (fused || dkv);
  const bool bias_by_rows = bias.direct && !bias_by_keys;
  if (!fused && (dq || bias_by_rows)) {
    pool.run(
        row_units,
        [&](std::int64_t index, int worker) {
          throw_if_cancelled(args.submission);
          BackwardUnit unit = row_unit(call, index);
          unit.dbias = bias_by_rows;
          HWY_DYNAMIC_DISPATCH(backward_unit)(call, unit, scratch(worker));
        },
        workers);
  }
  if (dkv || (fused && (dq || bias_by_keys))) {
    pool.run(
        p.batch * p.num_heads_kv * key_chunks(call),
        [&](std::int64_t index, int worker) {
          throw_if_cancelled(args.submission);
          BackwardUnit unit = key_unit(call, index, fused);
          unit.dbias = bias_by_keys;
          HWY_DYNAMIC_DISPATCH(backward_unit)(call, unit, scratch(worker));
        },
        workers);
  }
  if (!bias.direct) {
    pool.run(
        bias.units(),
        [&](std::int64_t unit, int worker) {
          HWY_DYNAMIC_DISPATCH(bias_unit)(call, bias.unit(call, unit), scratch(worker));
        },
        workers);
  }
  if (args.dsinks.data == nullptr) return;
  pool.run(
      p.num_heads,
      [&](std::int64_t head, int worker) {
        HWY_DYNAMIC_DISPATCH(sinks_unit)(call, head, scratch(worker));
      },
      workers);
}

}  // namespace ingot
#endif  // HWY_ONCE
