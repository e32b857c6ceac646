// Tiles of kernels/scores_sm90.cuh and backward_terms_sm90.cuh, and which problems take the unfused
// backward pass.
#include <algorithm>

#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t most_shared = 232448;
constexpr std::int64_t slack = 1152;  // to align the start; barriers
constexpr std::int64_t row_bytes = 128, keys = 128, most_stages = 6;
constexpr std::int64_t out_bytes = 2 * 2 * 64 * row_bytes;  // two tiles of two warpgroups

// Below it the launches of several kernels cost more than faster products gain.
constexpr double least_operations = 5e8, least_operations_f32 = 1e9;
constexpr std::int64_t least_rows = 64, widest_terms = 64;

std::int64_t stage_bytes(const Config& c) { return c.planes * (keys + c.block_m) * row_bytes; }
std::int64_t fixed_bytes(const Config& c) { return out_bytes + c.block_m * 4 + slack; }

double operations(const Problem& p) {
  return 10.0 * static_cast<double>(p.batch * p.num_heads * p.seqlen_q) *
         static_cast<double>(p.seqlen_k) * static_cast<double>(p.head_dim + p.head_dim_v) / 2;
}

std::int64_t terms_of(const Problem& p) {
  return p.q != Dtype::f32 ? 1 : p.precision == Precision::high ? 2 : 3;
}

/// What the kernels of both forms are made for.
std::optional<Config> common(const Problem& p, std::string& why_not) {
  const bool f32 = p.q == Dtype::f32;
  if (p.seqlen_q < least_rows) {
    why_not = "few query rows";
    return std::nullopt;
  }
  if (operations(p) < (f32 ? least_operations_f32 : least_operations)) {
    why_not = "too little work for kernels of their own";
    return std::nullopt;
  }
  Config c;
  c.arch = "sm_90a";
  c.planes = terms_of(p);
  c.element = type_of(f32 ? Dtype::bf16 : p.q);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.softcap = p.softcap > 0;
  c.masked = is_masked(p);
  c.block_n = keys;
  c.warpgroups = 2;
  return c;
}

}  // namespace

// Registers: 256 queries are 128 sums and 64 pairs of weights a thread. Terms are kept in f32, a
// softcap needs its derivative too: 128 queries.
std::optional<Config> choose_scores(const Problem& p, std::string& why_not) {
  std::optional<Config> c = common(p, why_not);
  if (!c) return std::nullopt;
  c->kernel = "scores_sm90";
  c->block_m = c->planes > 1 || c->softcap ? 128 : 256;
  c->ordered = true;
  c->stages = std::min(most_stages, (most_shared - fixed_bytes(*c)) / stage_bytes(*c));
  return c;
}

// As ScoresShape in kernels/scores_shape.cuh.
Needs needs_scores(const Config& c) {
  return {128 * (c.warpgroups + 1), c.stages * stage_bytes(c) + fixed_bytes(c)};
}

// P and dS, 20 bytes a pair written and read with two terms, bound the unfused form; dS alone is 8.
std::optional<Config> choose_terms(const Problem& p, std::string& why_not) {
  if (p.q != Dtype::f32 || std::max(p.head_dim, p.head_dim_v) > widest_terms) {
    why_not = "no narrow heads of f32";
    return std::nullopt;
  }
  std::optional<Config> c = common(p, why_not);
  if (!c) return std::nullopt;
  c->kernel = "backward_terms_sm90";
  c->dk_type = type_of(p.dk);
  c->dv_type = type_of(p.dv);
  c->block_m = 64;
  c->stages = c->planes == 3 ? 2 : 4;
  return c;
}

// As KeysShape in kernels/backward_keys.cuh, with one panel of columns.
Needs needs_terms(const Config& c) {
  const std::int64_t tile = 64 * row_bytes, key_groups = c.block_n / 64;
  const std::int64_t tiles = 2 * c.planes * (key_groups + c.stages) + 2 * key_groups;
  const std::int64_t barriers = 256;
  return {128 * (c.warpgroups + 1), tiles * tile + c.stages * (512 + 8) + barriers};
}

}  // namespace ingot::cuda
