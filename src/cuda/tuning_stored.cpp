// Tiles of kernels/backward_stored_sm90.cuh and backward_stored_wide_sm90.cuh.
#include <algorithm>

#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t tile_bytes = 64 * 128;  // 64 rows of a panel of 64 columns
constexpr std::int64_t widest_head = 256, widest_in_one = 128, least_rows = 64;
constexpr double least_operations = 5e8;  // below it a launch more costs more than it gains

std::int64_t panels(std::int64_t dim) { return ceil_div(dim, 64); }

double operations(const Problem& p) {
  return 5.0 * static_cast<double>(p.batch * p.num_heads * p.seqlen_q) *
         static_cast<double>(p.seqlen_k) * static_cast<double>(p.head_dim + p.head_dim_v);
}

}  // namespace

// Registers: dK and dV of 64 keys are (head_dim + head_dim_v) / 2 of a thread's 240, S and dP 64,
// an operand of 16 bits 16.
std::optional<Config> choose_stored(const Problem& p, std::string& why_not) {
  const std::int64_t widest = std::max(p.head_dim, p.head_dim_v);
  const auto no = [&](const char* reason) {
    why_not = reason;
    return std::nullopt;
  };
  if (p.q == Dtype::f32) return no("dtype f32");
  if (widest > widest_head) return no("a head is wider than 256");
  if (p.seqlen_q < least_rows) return no("few query rows");
  if (operations(p) < least_operations) return no("too little work for kernels of their own");
  Config c;
  c.wide = widest > widest_in_one;
  c.kernel = c.wide ? "backward_stored_wide_sm90" : "backward_stored_sm90";
  c.arch = "sm_90a";
  c.element = type_of(p.q);
  c.dk_type = type_of(p.dk);
  c.dv_type = type_of(p.dv);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.block_m = 64;
  c.block_n = c.wide ? 64 : 128;
  c.warpgroups = 2;
  c.stages = c.wide ? 2 : 3;
  c.masked = is_masked(p);
  c.softcap = p.softcap > 0;
  return c;
}

// As KeysShape in kernels/backward_keys.cuh.
Needs needs_stored(const Config& c) {
  const std::int64_t key_groups = c.block_n / 64;
  const std::int64_t columns = panels(c.head_dim) + panels(c.head_dim_v);
  const std::int64_t tiles = (key_groups + c.stages) * columns + 2 * key_groups + (c.wide ? 2 : 0);
  const std::int64_t slack = 256;  // barriers
  return {128 * (c.warpgroups + 1), tiles * tile_bytes + c.stages * (512 + 8) + slack};
}

Config choose_relay(const Config& keys, const Config& dq) {
  Config c = keys;
  c.kernel = "backward_relay_sm90";
  c.dq_type = dq.output;
  c.block_m = dq.block_m;
  c.stages_dq = dq.stages;
  return c;
}

// Tiles of both lie in the same memory, one after the other.
Needs needs_relay(const Config& c) {
  Config dq = c;
  dq.columns = round_up(c.head_dim, 16);
  dq.stages = c.stages_dq;
  const std::int64_t unit = 64;  // what a block tells its threads
  const Needs keys = needs_stored(c);
  return {keys.threads, std::max(keys.shared_bytes, needs_product(dq).shared_bytes) + unit};
}

}  // namespace ingot::cuda
