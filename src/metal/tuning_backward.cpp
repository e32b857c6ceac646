#include "metal/tuning_backward.hpp"

#include <algorithm>
#include <span>

#include "algorithm/score.h"
#include "metal/tuning.hpp"

namespace ingot::metal {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }
constexpr std::int64_t tiles_of(std::int64_t columns) { return ceil_div(columns, 8); }

std::int64_t bytes_of(const TypeName& type) { return type.name == "float" ? 4 : 2; }

/// First row of a table with head_dim and head_dim_v <= max_dim. The own rows of both operands and
/// the results stay in registers; where one simdgroup has not enough of them, `splits` simdgroups
/// share the rows and deal out the columns. Slabs of right-hand operands: block_n x block_d, and
/// for products that make results up to `wide` times as many columns of fewer rows. block_d 0: no
/// slabs, right-hand operands come straight from device memory.
///
/// panel is forward's, and a slab holds whole panels, so that S here has the bits that lse was made
/// of; the rows with less do not have the registers.
struct Shape {
  std::int64_t max_dim, rows, simdgroups, splits, block_n, block_d, wide, panel;
  bool cache_lhs, cache_dout;
};
using Table = std::span<const Shape>;

// Families 7 and 8: at most 128 registers a thread, at most 104 where a threadgroup has 512
// threads. Right-hand operands are staged, unless every simdgroup reads other columns of them
// anyway.
constexpr Shape dq_staged_16[] = {
    {32, 16, 4, 1, 32, 32, 1, 4, true, true},      {64, 16, 4, 1, 32, 64, 1, 4, true, false},
    {96, 16, 4, 1, 32, 64, 1, 4, false, false},    {128, 16, 8, 2, 64, 32, 1, 4, false, false},
    {256, 16, 16, 4, 64, 32, 1, 4, false, false},  {384, 16, 12, 3, 48, 32, 2, 4, false, false},
    {512, 16, 8, 4, 64, 64, 1, 4, false, false},   {768, 16, 16, 8, 64, 64, 1, 4, false, false},
    {1024, 24, 16, 16, 128, 0, 1, 2, false, false}};
constexpr Shape dq_staged_32[] = {
    {32, 16, 4, 1, 32, 32, 1, 2, true, true},     {64, 16, 4, 1, 32, 32, 1, 2, false, false},
    {128, 16, 8, 2, 64, 16, 1, 2, false, false},  {256, 16, 16, 4, 64, 16, 2, 2, false, false},
    {384, 16, 12, 3, 48, 32, 2, 2, false, false}, {512, 16, 8, 4, 64, 32, 1, 2, false, false},
    {768, 16, 16, 8, 64, 16, 4, 2, false, false}, {1024, 24, 16, 16, 128, 0, 1, 1, false, false}};
constexpr Shape dkv_staged_16[] = {
    {32, 16, 4, 1, 32, 32, 1, 4, true, true},      {64, 16, 8, 2, 32, 64, 1, 4, true, true},
    {128, 16, 16, 4, 64, 32, 1, 4, false, false},  {192, 16, 12, 3, 48, 32, 2, 4, false, false},
    {256, 16, 8, 4, 64, 64, 1, 4, false, false},   {384, 32, 12, 12, 96, 0, 1, 4, false, false},
    {512, 24, 16, 16, 128, 0, 1, 4, false, false}, {768, 16, 16, 16, 256, 0, 1, 4, false, false},
    {1024, 16, 16, 16, 128, 0, 1, 2, false, false}};
constexpr Shape dkv_staged_32[] = {
    {32, 16, 4, 1, 32, 16, 1, 2, true, false},     {64, 16, 8, 2, 64, 16, 1, 2, false, false},
    {128, 16, 16, 4, 64, 16, 2, 2, false, false},  {192, 16, 12, 3, 48, 32, 2, 2, false, false},
    {256, 16, 8, 4, 64, 32, 1, 2, false, false},   {384, 32, 12, 12, 96, 0, 1, 2, false, false},
    {512, 24, 16, 16, 128, 0, 1, 2, false, false}, {768, 16, 16, 16, 256, 0, 1, 2, false, false},
    {1024, 16, 16, 16, 128, 0, 1, 1, false, false}};
// Family 9 and newer.
constexpr Shape dq_direct_16[] = {
    {32, 16, 4, 1, 32, 0, 1, 4, true, true},     {64, 16, 4, 1, 32, 0, 1, 4, true, false},
    {96, 16, 4, 1, 32, 0, 1, 4, false, false},   {192, 16, 8, 2, 64, 0, 1, 4, false, false},
    {384, 16, 16, 4, 64, 0, 1, 4, false, false}, {768, 16, 16, 8, 128, 0, 1, 4, false, false},
    {1024, 8, 16, 4, 64, 0, 1, 2, false, false}};
constexpr Shape dq_direct_32[] = {
    {32, 16, 4, 1, 32, 0, 1, 2, true, true},      {64, 16, 4, 1, 32, 0, 1, 2, false, false},
    {192, 16, 8, 2, 64, 0, 1, 2, false, false},   {384, 16, 16, 4, 64, 0, 1, 2, false, false},
    {768, 16, 16, 8, 128, 0, 1, 2, false, false}, {1024, 8, 16, 4, 64, 0, 1, 1, false, false}};
constexpr Shape dkv_direct_16[] = {
    {32, 16, 4, 1, 32, 0, 1, 4, true, true},     {64, 16, 8, 2, 32, 0, 1, 4, true, true},
    {192, 16, 16, 4, 64, 0, 1, 4, false, false}, {384, 16, 16, 8, 128, 0, 1, 4, false, false},
    {512, 16, 16, 8, 64, 0, 1, 2, false, false}, {1024, 16, 16, 16, 128, 0, 1, 2, false, false}};
constexpr Shape dkv_direct_32[] = {
    {32, 16, 4, 1, 32, 0, 1, 2, true, false},    {64, 16, 8, 2, 64, 0, 1, 2, false, false},
    {192, 16, 16, 4, 64, 0, 1, 2, false, false}, {384, 16, 16, 8, 128, 0, 1, 2, false, false},
    {512, 16, 16, 8, 64, 0, 1, 1, false, false}, {1024, 16, 16, 16, 128, 0, 1, 1, false, false}};

Table table_of(bool dkv, bool staged, bool narrow) {
  if (staged) {
    if (dkv) return narrow ? Table(dkv_staged_16) : Table(dkv_staged_32);
    return narrow ? Table(dq_staged_16) : Table(dq_staged_32);
  }
  if (dkv) return narrow ? Table(dkv_direct_16) : Table(dkv_direct_32);
  return narrow ? Table(dq_direct_16) : Table(dq_direct_32);
}

const Shape& row_of(Table table, std::int64_t dim) {
  for (const Shape& row : table) {
    if (dim <= row.max_dim) return row;
  }
  return table.back();
}

std::string_view family_name(int family) {
  return family <= 7 ? "apple7" : family == 8 ? "apple8" : family == 9 ? "apple9" : "apple10";
}

/// dS has the range of f32: in f16 it could overflow. A bf16 has that range by itself.
TypeName gradient_register(const TypeName& a, const TypeName& b) {
  const bool bf16 = a.name == "bfloat" && b.name == "bfloat";
  return TypeName{bf16 ? "bfloat" : "float"};
}

void set_types(Config& c, const Problem& p, int family) {
  c.q_type = memory_type(p.q, family);
  c.k_type = memory_type(p.k, family);
  c.v_type = memory_type(p.v, family);
  c.dout_type = memory_type(p.dout, family);
  c.qk_reg = register_type(p.q, p.k, family);
  c.dp_reg = register_type(p.dout, p.v, family);
  c.ds_reg = gradient_register(c.qk_reg, c.dp_reg);
  if (c.kernel == "backward_dq") {
    c.dq_type = memory_type(p.dq, family);
  } else {
    // Of mixed dtypes the widest counts, as in plain attention: P is f32.
    const bool one_dtype = p.q == p.k && p.q == p.v && p.q == p.dout;
    c.pv_reg = one_dtype ? c.dp_reg : TypeName{"float"};
    c.dk_type = memory_type(p.dk, family);
    c.dv_type = memory_type(p.dv, family);
  }
}

/// The width of slabs that makes the fewest columns of nothing, at most `most`.
std::int64_t even_width(std::int64_t dim, std::int64_t unit, std::int64_t most) {
  std::int64_t best = std::max(unit, most / unit * unit);
  for (std::int64_t width = best; width >= unit; width -= unit) {
    if (round_up(dim, width) < round_up(dim, best)) best = width;
  }
  return best;
}

void set_shape(Config& c, const Shape& row) {
  c.rows_per_simdgroup = row.rows;
  c.simdgroups = row.simdgroups;
  c.block_m = row.rows * row.simdgroups / row.splits;
  c.block_n = row.block_n;
  c.panel = row.panel;
  c.cache_lhs = row.cache_lhs;
  c.cache_dout = row.cache_dout;
  c.stage_rhs = row.block_d != 0;
  c.block_d = c.block_dv = 8;
  if (!c.stage_rhs) return;
  const std::int64_t dim = round_up(std::max(c.head_dim, c.head_dim_v), 8);
  c.block_d = std::min(row.block_d, dim);
  c.block_dv = even_width(dim, 8 * row.splits, row.wide * row.block_d);
}

Config product_config(const Problem& p, const DeviceCaps& caps, std::string_view kernel) {
  Config c;
  c.kernel = kernel;
  c.family = family_name(caps.family);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.masked =
      is_masked(make_score_params(p.scale, p.softcap, p.seqlen_q, p.seqlen_k,
                                  static_cast<int>(p.causal), p.window_left, p.window_right));
  c.softcap = p.softcap != 0;
  set_parts(c, p, caps.family);
  set_types(c, p, caps.family);
  const bool narrow = bytes_of(c.qk_reg) == 2 && bytes_of(c.dp_reg) == 2;
  const Table table = table_of(kernel == "backward_dkv", caps.family < 9, narrow);
  set_shape(c, row_of(table, std::max(p.head_dim, p.head_dim_v)));
  return c;
}

Config delta_config(const Problem& p, const DeviceCaps& caps) {
  Config c;
  c.kernel = "delta";
  c.family = family_name(caps.family);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.softcap = p.softcap != 0;
  set_parts(c, p, caps.family);
  c.dropout = false;  // delta has it by o
  c.q_type = memory_type(p.q, caps.family);
  c.k_type = memory_type(p.k, caps.family);
  c.o_type = memory_type(p.o, caps.family);
  c.dout_type = memory_type(p.dout, caps.family);
  c.simdgroups = 8;
  c.block_m = 4 * c.simdgroups;  // eight threads a row
  return c;
}

/// A threadgroup makes 8 rows of 32 cols of dbias, all rows or cols where it has one for all.
BackwardKernel dbias_kernel(const Problem& p, const DeviceCaps& caps) {
  Config c = product_config(p, caps, "backward_dq");
  BackwardKernel kernel;
  Config& own = kernel.config;
  own.kernel = "backward_dbias";
  own.family = c.family;
  own.head_dim = c.head_dim, own.head_dim_v = c.head_dim_v;
  own.masked = c.masked, own.softcap = c.softcap;
  own.q_type = c.q_type, own.k_type = c.k_type, own.v_type = c.v_type;
  own.dout_type = c.dout_type;
  set_parts(own, p, caps.family);
  own.dbias_type = memory_type(p.parts.dbias_dtype, caps.family);
  own.block_m = own.simdgroups = 8;
  own.block_n = 32;
  const auto& shape = p.parts.bias_shape;
  kernel.grid = {ceil_div(shape[3], own.block_n), ceil_div(shape[2], own.block_m),
                 shape[0] * shape[1]};
  kernel.threads = 32 * own.simdgroups;
  return kernel;
}

BackwardKernel dsinks_kernel(const Problem& p, const DeviceCaps& caps) {
  BackwardKernel kernel;
  Config& own = kernel.config;
  own.kernel = "backward_dsinks";
  own.family = family_name(caps.family);
  own.sinks = true;
  own.sinks_type = memory_type(p.parts.sinks_dtype, caps.family);
  own.dsinks_type = memory_type(p.parts.dsinks_dtype, caps.family);
  own.simdgroups = 8;
  kernel.grid = {p.num_heads, 1, 1};
  kernel.threads = 32 * own.simdgroups;
  return kernel;
}

/// Columns of a slab of a result, and those of them that one simdgroup owns; see
/// kernels/backward_product.h.
std::int64_t result_width(const Config& c, std::int64_t dim) {
  const std::int64_t padded = round_up(dim, 8 * column_splits(c));
  return c.stage_rhs ? std::min(c.block_dv, padded) : padded;
}

std::int64_t result_registers(const Config& c, std::int64_t dim) {
  const std::int64_t width = result_width(c, dim);
  const std::int64_t tiles = ceil_div(dim, width) * width / column_splits(c) / 8;
  return c.rows_per_simdgroup / 8 * tiles * 2;
}

std::int64_t slab_bytes(std::int64_t rows, std::int64_t columns, const TypeName& type) {
  const std::int64_t bytes = bytes_of(type);
  return rows * (columns + 16 / bytes) * bytes;
}

std::string describe(const Config& c) {
  const auto text = [](std::int64_t n) { return std::to_string(n); };
  std::string out = std::string(c.kernel) + ": " + text(c.block_m) +
                    (c.kernel == "backward_dq" ? " query rows" : " keys") + " a threadgroup, " +
                    text(c.block_n) + " of the other sequence a step, " +
                    text(c.rows_per_simdgroup) + " rows a simdgroup";
  if (column_splits(c) > 1) {
    out += "; " + text(column_splits(c)) +
           " simdgroups share rows and deal out the columns, so that results stay in registers";
  }
  out += c.stage_rhs ? "; right-hand operands pass through two slots of threadgroup memory"
                     : "; right-hand operands come straight from device memory";
  return out;
}

}  // namespace

std::int64_t column_splits(const Config& c) {
  return c.simdgroups * c.rows_per_simdgroup / c.block_m;
}

std::int64_t wide_rows(const Config& c) {
  std::int64_t rows = c.block_n;
  while (rows * c.block_dv > c.block_n * c.block_d) rows /= 2;
  return rows;
}

std::int64_t backward_threadgroup_bytes(const Config& c) {
  if (c.kernel == "delta") return 0;
  std::int64_t slot = 0;
  const bool dq = c.kernel == "backward_dq";
  if (c.stage_rhs) {
    const std::int64_t rows = wide_rows(c);
    slot = std::max(slab_bytes(c.block_n, c.block_d, dq ? c.k_type : c.q_type),
                    slab_bytes(c.block_n, c.block_d, dq ? c.v_type : c.dout_type));
    slot = std::max(slot, slab_bytes(rows, result_width(c, c.head_dim), dq ? c.k_type : c.q_type));
    if (!dq) {
      slot = std::max(slot, slab_bytes(rows, result_width(c, c.head_dim_v), c.dout_type));
    }
  }
  std::int64_t weights = 0;
  if (column_splits(c) > 1) {
    const std::int64_t bytes = std::max(bytes_of(c.ds_reg), dq ? 0 : bytes_of(c.pv_reg));
    weights = c.block_m * (c.block_n + 8) * bytes;
  }
  return std::max<std::int64_t>(2 * slot + weights, 16);
}

std::int64_t backward_registers_estimate(const Config& c) {
  if (c.kernel == "delta") return 24;
  const std::int64_t row_tiles = c.rows_per_simdgroup / 8;
  const std::int64_t own_tiles = c.block_n / 8 / column_splits(c);
  const bool dq = c.kernel == "backward_dq";
  const std::int64_t bytes = std::max(bytes_of(c.qk_reg), bytes_of(c.dp_reg));
  std::int64_t count = result_registers(c, c.head_dim);
  if (!dq) count += result_registers(c, c.head_dim_v);
  count += 2 * row_tiles * own_tiles * 2;  // S and dP
  if (c.cache_lhs) count += row_tiles * tiles_of(c.head_dim) * 2 * bytes_of(c.qk_reg) / 4;
  if (c.cache_dout) count += row_tiles * tiles_of(c.head_dim_v) * 2 * bytes_of(c.dp_reg) / 4;
  count += (row_tiles + 1) * c.panel * 2 * bytes / 4;  // operands of one panel
  count += dq ? row_tiles * 2 : own_tiles * 2;         // numbers of a query row, between products
  if (c.stage_rhs) {
    const std::int64_t slab =
        c.block_n * c.block_d * std::max(bytes_of(c.q_type), bytes_of(c.dout_type));
    count += ceil_div(slab, 32 * c.simdgroups * 16) * 4;  // on its way to a slot
  }
  return count + 24;
}

BackwardKernel backward_kernel(const Config& c, const Problem& p) {
  BackwardKernel kernel;
  kernel.config = c;
  const bool dkv = c.kernel == "backward_dkv";
  kernel.grid = {ceil_div(dkv ? p.seqlen_k : p.seqlen_q, c.block_m),
                 dkv ? p.num_heads_kv : p.num_heads, p.batch};
  kernel.threads = 32 * c.simdgroups;
  kernel.threadgroup_bytes = backward_threadgroup_bytes(c);
  return kernel;
}

BackwardChoice choose_backward(const Problem& p, const DeviceCaps& caps) {
  BackwardChoice choice;
  choice.delta = backward_kernel(delta_config(p, caps), p);
  choice.dq = backward_kernel(product_config(p, caps, "backward_dq"), p);
  choice.dkv = backward_kernel(product_config(p, caps, "backward_dkv"), p);
  if (p.parts.bias) choice.dbias = dbias_kernel(p, caps);
  if (p.parts.sinks) choice.dsinks = dsinks_kernel(p, caps);
  choice.why.push_back(describe(choice.dq.config));
  choice.why.push_back(describe(choice.dkv.config));
  return choice;
}

}  // namespace ingot::metal
