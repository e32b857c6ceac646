#include "metal/tuning.hpp"

#include <algorithm>
#include <span>

#include "algorithm/score.h"

namespace ingot::metal {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

std::int64_t bytes_of(const TypeName& type) { return type.name == "float" ? 4 : 2; }

/// The widest accumulator that one simdgroup keeps for its rows; beyond it the columns of o are
/// dealt out to the simdgroups of a threadgroup.
constexpr std::int64_t widest_own_rows = 120;

/// Simdgroups that own their rows. The first row of a table with head_dim_v <= max_dim holds.
struct OwnShape {
  std::int64_t max_dim, rows_per_simdgroup, simdgroups, block_n, block_d;
  bool cache_q;  // where head_dim <= max_dim, too
};

// Operands of 16 bits in registers, for every family, then of 32. apple7 and apple8 stage K and V
// in slabs of block_d columns; apple9 and newer read them straight from device memory, and have
// registers for more keys where no slab is held.
constexpr OwnShape any_half[] = {
    {32, 32, 4, 32, 32, true},
    {64, 16, 4, 64, 32, true},
    {96, 16, 4, 32, 32, true},
    {widest_own_rows, 16, 4, 32, 32, false},
};
constexpr OwnShape apple7_float[] = {
    {16, 32, 4, 32, 16, true},
    {32, 32, 4, 16, 32, true},
    {64, 16, 4, 32, 32, true},
    {widest_own_rows, 16, 4, 32, 32, false},
};
constexpr OwnShape apple9_float[] = {
    {16, 32, 4, 32, 16, true},
    {32, 32, 4, 16, 32, true},
    {64, 16, 4, 32, 32, true},
    {104, 16, 4, 48, 32, false},
    {widest_own_rows, 16, 4, 32, 32, false},
};

/// Simdgroups that share their rows, each with about `columns` columns of o and `keys` keys of a
/// block.
struct SharedShape {
  std::int64_t max_dim, rows, columns, keys;
};

constexpr SharedShape shared_half[] = {
    {448, 32, 32, 16},
    {512, 32, 32, 8},
    {1024, 16, 64, 32},
};
constexpr SharedShape shared_float[] = {
    {384, 32, 32, 16},
    {512, 32, 32, 8},
    {1024, 16, 64, 16},
};

template <class Row>
const Row& find_row(std::span<const Row> table, std::int64_t dim) {
  for (const Row& row : table) {
    if (dim <= row.max_dim) return row;
  }
  return table.back();
}

std::span<const OwnShape> own_table(int family, bool half) {
  if (half) return any_half;
  return family < 9 ? std::span<const OwnShape>(apple7_float) : apple9_float;
}

std::string_view family_name(int family) {
  return family <= 7 ? "apple7" : family == 8 ? "apple8" : family == 9 ? "apple9" : "apple10";
}

ScoreParams score_params(const Problem& p) {
  return make_score_params(p.scale, p.softcap, p.seqlen_q, p.seqlen_k, static_cast<int>(p.causal),
                           p.window_left, p.window_right);
}

/// Keys that some row may see end here; how long prefixes are, a call says.
std::int64_t seen_end(const Problem& p) {
  return p.parts.prefix ? p.seqlen_k : col_end(score_params(p), p.seqlen_q - 1);
}

bool half_registers(const Config& c) { return bytes_of(c.qk_reg) == 2 && bytes_of(c.pv_reg) == 2; }

Config base_config(const Problem& p, const DeviceCaps& caps) {
  Config c;
  c.family = family_name(caps.family);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.q_type = memory_type(p.q, caps.family);
  c.k_type = memory_type(p.k, caps.family);
  c.v_type = memory_type(p.v, caps.family);
  c.o_type = memory_type(p.o, caps.family);
  c.qk_reg = register_type(p.q, p.k, caps.family);
  // The weights are rounded to 16 bits only where plain attention would round them, too.
  const bool one_dtype = p.q == p.k && p.k == p.v;
  c.pv_reg = one_dtype ? register_type(p.v, p.v, caps.family) : TypeName{"float"};
  c.panel = half_registers(c) ? 4 : 2;  // 16 bytes a thread and row
  c.masked = is_masked(score_params(p));
  c.softcap = p.softcap != 0;
  set_parts(c, p, caps.family);
  return c;
}

void shape_own_rows(Config& c, int family) {
  c.kernel = "forward";
  c.stage_rhs = family < 9;
  const OwnShape& shape = find_row(own_table(family, half_registers(c)), c.head_dim_v);
  c.rows_per_simdgroup = shape.rows_per_simdgroup;
  c.simdgroups = shape.simdgroups;
  c.block_m = shape.rows_per_simdgroup * shape.simdgroups;
  c.block_n = shape.block_n;
  c.block_d = shape.block_d;
  c.block_dv = c.head_dim_v;
  c.cache_lhs = shape.cache_q && c.head_dim <= shape.max_dim;
}

/// 512 threads, which Apple GPUs have room for up to 104 registers each.
constexpr std::int64_t most_simdgroups = 16;

/// Columns of o a simdgroup: near `columns`, with as little padding of head_dim_v as can be.
std::int64_t share_of_columns(std::int64_t head_dim_v, std::int64_t columns) {
  std::int64_t best = columns;
  for (const std::int64_t share : {columns - 8, columns + 8}) {
    if (ceil_div(head_dim_v, share) > most_simdgroups) continue;
    if (round_up(head_dim_v, share) < round_up(head_dim_v, best)) best = share;
  }
  return best;
}

constexpr std::int64_t group_bytes = 32 * 1024;

/// Q stays in threadgroup memory where that leaves room for 12 simdgroups a core; else it passes
/// through two slots of the widest slabs that fit.
void place_queries(Config& c) {
  constexpr std::int64_t core_bytes = 60 * 1024;
  c.cache_lhs = true;
  c.block_d = 8 * c.panel;
  if (threadgroup_bytes(c) <= std::min(group_bytes, core_bytes / ceil_div(12, c.simdgroups))) {
    return;
  }
  c.cache_lhs = false;
  c.block_d = 64;
  while (c.block_d > 8 * c.panel && threadgroup_bytes(c) > 28 * 1024) c.block_d /= 2;
}

void shape_shared_rows(Config& c) {
  c.kernel = "forward_wide";
  c.stage_rhs = false;
  const auto table = half_registers(c) ? std::span<const SharedShape>(shared_half)
                                       : std::span<const SharedShape>(shared_float);
  const SharedShape& shape = find_row(table, c.head_dim_v);
  c.rows_per_simdgroup = shape.rows;
  c.block_m = shape.rows;
  c.block_dv = share_of_columns(c.head_dim_v, shape.columns);
  c.simdgroups = ceil_div(c.head_dim_v, c.block_dv);
  for (std::int64_t keys = shape.keys; keys >= 8; keys /= 2) {
    c.block_n = keys * c.simdgroups;
    place_queries(c);
    if (threadgroup_bytes(c) <= group_bytes) return;
  }
}

/// The rows of all heads that share keys, packed: few enough for one or a few tiles.
void shape_decode(Config& c, std::int64_t packed_rows) {
  const bool wide = c.head_dim_v > widest_own_rows;
  if (wide && packed_rows > 16) {
    shape_shared_rows(c);
    c.kernel = "decode_wide";
    return;
  }
  c.kernel = wide ? "decode_wide" : "decode";
  c.stage_rhs = false;
  c.rows_per_simdgroup = packed_rows <= 8 ? 8 : 16;
  c.block_m = c.rows_per_simdgroup;
  if (wide) {
    c.block_dv = 64;
    c.simdgroups = ceil_div(c.head_dim_v, c.block_dv);
    c.block_n = 16 * c.simdgroups;
    place_queries(c);
  } else {
    c.block_dv = c.head_dim_v;
    c.simdgroups = 4;
    c.block_n = 32;
    c.block_d = 8 * c.panel;
    c.cache_lhs = true;
    c.cache_lhs = registers_estimate(c) <= 104;
  }
}

/// Simdgroups that keep every core at work while others wait for memory.
constexpr std::int64_t simdgroups_per_core = 24;
constexpr std::int64_t decode_rows = 16;       ///< seqlen_q up to which the keys are split
constexpr std::int64_t shortest_decode = 256;  ///< keys from which it is worth it
constexpr std::int64_t shortest_split = 64;

void choose_decode(const Problem& p, const DeviceCaps& caps, ForwardChoice& choice) {
  Config& c = choice.config;
  const std::int64_t packed_rows = p.num_heads / p.num_heads_kv * p.seqlen_q;
  shape_decode(c, packed_rows);
  const bool wide = c.kernel == "decode_wide";
  choice.row_blocks = ceil_div(packed_rows, c.rows_per_simdgroup);
  const std::int64_t cores = caps.cores > 0 ? caps.cores : 8;
  const std::int64_t pieces = std::max<std::int64_t>(
      p.batch * p.num_heads_kv * choice.row_blocks * (wide ? c.simdgroups : 1), 1);
  const std::int64_t wanted = std::max<std::int64_t>(cores * simdgroups_per_core / pieces, 2);
  const ScoreParams score = score_params(p);
  const std::int64_t visible = seen_end(p) - col_begin(score, 0) / c.block_n * c.block_n;
  const std::int64_t length =
      round_up(std::max(ceil_div(visible, wanted), shortest_split), c.block_n);
  choice.split_length = length;
  choice.splits = std::max<std::int64_t>(ceil_div(visible, length), 2);
  c.split_k = 2;
  choice.grid = {wide ? choice.splits : ceil_div(choice.splits, c.simdgroups),
                 p.num_heads_kv * choice.row_blocks, p.batch};
  Config& m = choice.combine;
  m.kernel = "combine";
  m.family = c.family;
  m.head_dim = c.head_dim;
  m.head_dim_v = c.head_dim_v;
  m.o_type = c.o_type;
  m.has_lse = c.has_lse;
  m.simdgroups = std::min<std::int64_t>(ceil_div(p.head_dim_v, 32), 4);
  choice.combine_grid = {p.seqlen_q, p.num_heads, p.batch};
  choice.combine_threads = 32 * m.simdgroups;
}

}  // namespace

void set_parts(Config& c, const Problem& p, int family) {
  c.alibi = p.parts.alibi;
  c.bias = p.parts.bias;
  c.mask = p.parts.mask;
  c.prefix = p.parts.prefix;
  c.sinks = p.parts.sinks;
  c.dropout = p.parts.dropout > 0.0F;
  if (c.bias) c.bias_type = memory_type(p.parts.bias_dtype, family);
  if (c.sinks) c.sinks_type = memory_type(p.parts.sinks_dtype, family);
}

TypeName memory_type(Dtype dtype, int family) {
  if (dtype == Dtype::f32) return {"float"};
  if (dtype == Dtype::f16) return {"half"};
  return family >= 9 ? TypeName{"bfloat"} : TypeName{"ushort"};
}

TypeName register_type(Dtype a, Dtype b, int family) {
  if (a != b || a == Dtype::f32) return {"float"};
  if (a == Dtype::f16) return {"half"};
  return family >= 9 ? TypeName{"bfloat"} : TypeName{"float"};
}

Config specialise_access(Config config, std::int64_t unit_bytes) {
  config.unit_bytes = unit_bytes;
  return config;
}

namespace {

std::string text(std::int64_t number) { return std::to_string(number); }

std::vector<std::string> reasons(const Problem& p, const Config& c, const ForwardChoice& choice) {
  std::vector<std::string> why;
  if (choice.splits > 1) {
    why.push_back("decode: " + text(p.seqlen_q) + " query rows, so the keys are cut into " +
                  text(choice.splits) + " splits and the rows of the " +
                  text(p.num_heads / p.num_heads_kv) + " heads that share keys are packed");
  }
  if (c.block_dv < c.head_dim_v) {
    why.push_back("head_dim_v " + text(c.head_dim_v) + ": " + text(c.simdgroups) +
                  " simdgroups share rows, " + text(c.block_dv) +
                  " columns of o each, so that o stays in registers");
  }
  why.push_back(text(c.rows_per_simdgroup) + " rows a simdgroup: each tile of k and v feeds " +
                text(c.rows_per_simdgroup / 8) + " matrix operations");
  why.push_back(c.stage_rhs ? std::string(c.family) + ": k and v through threadgroup memory"
                            : "k and v straight from device memory");
  if (c.q_type.name == "ushort" || c.k_type.name == "ushort" || c.v_type.name == "ushort")
    why.push_back(std::string(c.family) + " has no bfloat: its bits are widened to float");
  return why;
}

}  // namespace

ForwardChoice choose_forward(const Problem& p, const DeviceCaps& caps) {
  ForwardChoice choice;
  Config& c = choice.config;
  c = base_config(p, caps);
  const ScoreParams score = score_params(p);
  const std::int64_t visible = p.seqlen_q == 0 ? 0 : seen_end(p) - col_begin(score, 0);
  if (p.seqlen_q <= decode_rows && visible >= shortest_decode) {
    choose_decode(p, caps, choice);
  } else {
    if (p.head_dim_v <= widest_own_rows) {
      shape_own_rows(c, caps.family);
    } else {
      shape_shared_rows(c);
    }
    choice.grid = {ceil_div(p.seqlen_q, c.block_m), p.num_heads, p.batch};
  }
  choice.threads = 32 * c.simdgroups;
  choice.threadgroup_bytes = threadgroup_bytes(c);
  choice.why = reasons(p, c, choice);
  return choice;
}

}  // namespace ingot::metal
