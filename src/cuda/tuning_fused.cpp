// Tiles of kernels/backward_fused_sm90.cuh, from measurements on Hopper GPUs; docs/hopper.md has
// figures and the command.
#include <algorithm>

#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t widest_head = 64;  // wider heads need more registers than there are
constexpr std::int64_t least_rows = 64;   // of queries, one tile
constexpr std::int64_t tile_bytes = 64 * 128, statistics_bytes = 2 * 64 * 4;
constexpr std::int64_t ds_slots = 4;

// A block of keys adds to the sum of a query after those before it, so that blocks of one head
// start one after the other; mixed with those of other heads they wait less. What they read and add
// to, of all heads in turn, should stay in the L2 cache. Under a causal mask the short blocks at
// the end of a head wait most, and many heads pay even beyond that cache. TFLOP/s at 16,384
// queries, 16 heads of 64, H100, 27 Nov 2026, short and steady runs (docs/hopper.md): dense 4 in
// turn 549 and 532, 16 in turn 529 and 515; causal 499 and 483, 535 and 503.
constexpr std::int64_t most_in_turn = 16;
constexpr std::int64_t l2_bytes = 36 << 20, l2_bytes_masked = 144 << 20;

std::int64_t heads_in_turn(const Problem& p, bool masked) {
  const std::int64_t head = p.seqlen_q * (2 * (p.head_dim + p.head_dim_v) + 4 * p.head_dim);
  const std::int64_t fitting = (masked ? l2_bytes_masked : l2_bytes) / head;
  return std::clamp<std::int64_t>(fitting, 1, std::min(most_in_turn, p.batch * p.num_heads_kv));
}

}  // namespace

std::optional<FusedChoice> choose_fused(const Problem& p, std::string& why_not) {
  const auto no = [&](const char* reason) {
    why_not = reason;
    return std::nullopt;
  };
  if (p.q == Dtype::f32) return no("dtype f32");
  if (std::max(p.head_dim, p.head_dim_v) > widest_head) return no("a head is wider than 64");
  if (p.seqlen_q < least_rows) return no("few query rows");
  Config c;
  c.kernel = "backward_fused_sm90";
  c.arch = "sm_90a";
  c.element = type_of(p.q);
  c.dq_type = type_of(p.dq);
  c.dk_type = type_of(p.dk);
  c.dv_type = type_of(p.dv);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.block_m = 64;
  c.block_n = 128;
  c.warpgroups = 3;
  c.stages = 4;
  c.masked = is_masked(p);
  c.softcap = p.softcap > 0;
  return FusedChoice{c, heads_in_turn(p, c.masked)};
}

// As FusedShape in kernels/backward_fused_shape.cuh.
Needs needs_fused(const Config& c) {
  const std::int64_t tiles = 4 + 2 * c.stages + 2 * ds_slots;
  const std::int64_t slack = 1280;  // barriers, and to align the start
  return {128 * (c.warpgroups + 1), tiles * tile_bytes + c.stages * statistics_bytes + slack};
}

}  // namespace ingot::cuda
