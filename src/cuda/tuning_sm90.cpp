// Tiles of kernels/forward_sm90.cuh and forward_wide_sm90.cuh, from measurements on an H200: many
// tiles of each row beside cuDNN, interleaved; docs/hopper.md has figures and the command.
#include <algorithm>

#include "algorithm/score.h"
#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

struct Row {
  std::int64_t widest_head;  ///< of head_dim and head_dim_v, that the row is for
  std::int64_t warpgroups;
  std::int64_t block_n, block_n_masked;
  bool ordered, wide;
  std::int64_t block_n_softcap = 0;  ///< 0: as without
  std::int64_t cluster = 1;          ///< of tiles without a mask
};

// Registers bound the rows: scores, weights and O of 64 rows a warpgroup are 3/4 block_n +
// head_dim_v / 2 of 160 (three warpgroups) or 240 (two); then shared memory, 227 KB.
constexpr Row rows[] = {
    {64, 3, 128, 128, true, false},  {80, 3, 112, 112, true, false},
    {96, 3, 112, 112, true, false},  {128, 2, 160, 128, true, false},
    {192, 2, 112, 112, true, false}, {256, 2, 80, 80, true, false},
    {320, 2, 48, 48, true, false},   {368, 2, 32, 32, true, false},
    {384, 3, 48, 48, false, true},   {512, 3, 32, 32, false, true, 0, 2},
};
// As terms of bf16, which take as many times the shared memory: three, and two. tanh to the bits of
// f32 takes registers.
constexpr Row rows_split[] = {
    {64, 2, 64, 64, true, false, 48},
    {128, 2, 32, 32, false, false, 16},
};
constexpr Row rows_split_high[] = {
    {64, 2, 112, 112, true, false, 96},
    {128, 2, 64, 64, false, false, 32},
};
constexpr Row narrow_v{128, 2, 128, 128, true, false};  // head_dim to 192, head_dim_v to 128

constexpr std::int64_t terms_f32 = 3;         // 24 bits
constexpr std::int64_t terms_f32_high = 2;    // 16 bits
constexpr double least_operations_f32 = 1e9;  // five more launches cost about 15 microseconds
constexpr std::int64_t tile_rows = 64, row_bytes = 128;
constexpr std::int64_t most_shared = 232448;

std::int64_t panels(std::int64_t dim) { return ceil_div(dim, 64); }

TypeName type_name(Dtype dtype) {
  return {dtype == Dtype::f32 ? "float" : dtype == Dtype::f16 ? "f16" : "bf16"};
}

const Row* find_row(const Problem& p) {
  const std::int64_t widest = std::max(p.head_dim, p.head_dim_v);
  const auto fits = [&](const Row& row) { return widest <= row.widest_head; };
  if (p.q == Dtype::f32) {
    const auto& table = p.precision == Precision::high ? rows_split_high : rows_split;
    const Row* row = std::ranges::find_if(table, fits);
    return row == std::end(table) ? nullptr : row;
  }
  if (p.head_dim > 128 && p.head_dim <= 192 && p.head_dim_v <= 128) return &narrow_v;
  const bool latent = p.head_dim > 512 && p.head_dim <= 576 && p.head_dim_v <= 512;
  const Row* row = std::ranges::find_if(rows, fits);
  return latent ? std::end(rows) - 1 : row == std::end(rows) ? nullptr : row;
}

/// The part of the rows of all tiles that are rows of q.
double filled(std::int64_t query_rows, std::int64_t block_m) {
  return static_cast<double>(query_rows) /
         static_cast<double>(ceil_div(query_rows, block_m) * block_m);
}

/// Heads that read the same keys share a tile where their own rows would leave it empty.
bool is_packed(const Problem& p, std::int64_t block_m) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  if (group == 1 || tile_rows % group != 0 || p.q == Dtype::f32) return false;
  return filled(p.seqlen_q, block_m) < 0.9 * filled(p.seqlen_q * group, block_m);
}

double operations(const Problem& p) {
  return 2.0 * static_cast<double>(p.batch * p.num_heads * p.seqlen_q) *
         static_cast<double>(p.seqlen_k) * static_cast<double>(p.head_dim + p.head_dim_v);
}

/// Too few tiles for the multiprocessors, and keys enough to share among several blocks.
bool wants_split_keys(const Problem& p, const Config& c, std::int64_t multiprocessors) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  const std::int64_t tiles = c.packed ? p.num_heads_kv * ceil_div(p.seqlen_q * group, c.block_m)
                                      : p.num_heads * ceil_div(p.seqlen_q, c.block_m);
  return tiles * p.batch * 4 < multiprocessors && p.seqlen_k >= 2048;
}

std::int64_t planes_of(const Problem& p) {
  if (p.q != Dtype::f32) return 1;
  return p.precision == Precision::high ? terms_f32_high : terms_f32;
}

/// What parts make of pairs takes registers too.
std::int64_t most_keys_with_parts(const Config& c) {
  if (c.planes > 1) return c.head_dim_v > 64 ? 16 : 32;
  return c.head_dim_v > 192 ? 48 : c.warpgroups == 3 ? 64 : 96;
}

Config config_of(const Problem& p, const Row& row) {
  Config c;
  c.kernel = row.wide ? "forward_wide_sm90" : "forward_sm90";
  c.arch = "sm_90a";
  c.planes = planes_of(p);
  c.element = type_name(p.q == Dtype::f32 ? Dtype::bf16 : p.q);
  c.output = type_name(p.o);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.warpgroups = row.warpgroups;
  c.block_m = tile_rows * (row.wide ? 1 : row.warpgroups);
  c.masked = is_masked(p);
  c.block_n = c.masked ? row.block_n_masked : row.block_n;
  c.stages = 2;
  c.softcap = p.softcap > 0;
  set_parts(c, p);
  if (c.has_pair_parts()) c.block_n = std::min(c.block_n, most_keys_with_parts(c));
  if (c.softcap && row.block_n_softcap != 0) c.block_n = row.block_n_softcap;
  c.ordered = row.ordered;
  c.wide = row.wide;
  c.packed = is_packed(p, c.block_m);
  const std::int64_t tile_rows_q = p.seqlen_q * (c.packed ? p.num_heads / p.num_heads_kv : 1);
  // Blocks of a cluster go through the same keys; the last one of a head is not to be idle.
  const bool even = filled(tile_rows_q, row.cluster * c.block_m) > 0.9;
  if (!c.masked && !p.parts.any() && even) c.cluster = row.cluster;
  return c;
}

}  // namespace

bool is_masked(const Problem& p) {
  return ingot::is_masked(make_score_params(p.scale, p.softcap, p.seqlen_q, p.seqlen_k,
                                            static_cast<int>(p.causal), p.window_left,
                                            p.window_right));
}

// As ForwardShape in kernels/forward_shape.cuh.
Needs needs_sm90(const Config& c) {
  const std::int64_t row_groups = c.block_m / tile_rows;
  const std::int64_t keys = c.stages * c.planes * c.block_n * row_bytes;
  const std::int64_t tiles = row_groups * c.planes * panels(c.head_dim) * tile_rows * row_bytes +
                             keys * (panels(c.head_dim) + panels(c.head_dim_v));
  const std::int64_t message = tile_rows * row_bytes + 2 * 4 * 128;
  const std::int64_t slack = 2048;  // barriers, and to align the start
  const std::int64_t messages = !c.wide ? 0 : tiles + 2 * message + slack <= most_shared ? 2 : 1;
  return {128 * (c.warpgroups + 1), tiles + messages * message + slack};
}

std::optional<Config> choose_sm90(const Problem& p, const DeviceCaps& caps, std::string& why_not) {
  const auto no = [&](const char* reason) {
    why_not = reason;
    return std::nullopt;
  };
  if (caps.sm != 90) return no("this device has no warpgroup products");
  if (p.parts.mask && p.parts.sinks) return no("it does not compute a mask and sinks together");
  if (p.q != p.k || p.q != p.v) return no("q, k and v must have one dtype");
  const Row* const row = find_row(p);
  if (row == nullptr) {
    return no(p.q == Dtype::f32 ? "a head of f32 is wider than 128" : "a head is wider than 512");
  }
  if (p.seqlen_k == 0) return no("there is no key");
  if (p.q == Dtype::f32 && operations(p) < least_operations_f32) {
    return no("too little work to split f32 into terms of bf16");
  }
  const Config config = config_of(p, *row);
  const std::int64_t group = config.packed ? p.num_heads / p.num_heads_kv : 1;
  if (p.seqlen_q * group < tile_rows) return no("few query rows");
  if (wants_split_keys(p, config, caps.sm_count)) return no("few tiles: their keys are split");
  return config;
}

}  // namespace ingot::cuda
