#include "metal/forward_cost.hpp"

#include <algorithm>

namespace ingot::metal {
namespace {

std::int64_t bytes_of(const TypeName& type) { return type.name == "float" ? 4 : 2; }
std::int64_t tiles_of(std::int64_t columns) { return (columns + 7) / 8; }
std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool shares_rows(const Config& c) {
  return c.kernel == "forward_wide" || c.kernel == "decode_wide";
}

/// Rows in threadgroup memory are 16 bytes longer than their columns: neighbours in other banks.
std::int64_t slab_bytes(std::int64_t rows, std::int64_t cols, const TypeName& type) {
  return rows * (cols * bytes_of(type) + 16);
}

std::int64_t slab_columns(const Config& c, std::int64_t head_dim) {
  return std::min(c.block_d, 8 * tiles_of(head_dim));
}

/// Registers that hold a slab between device and threadgroup memory.
std::int64_t slab_registers(const Config& c, std::int64_t rows, std::int64_t cols,
                            const TypeName& type) {
  return 4 * ceil_div(rows * cols * bytes_of(type), 16 * 32 * c.simdgroups);
}

}  // namespace

std::int64_t threadgroup_bytes(const Config& c) {
  if (shares_rows(c)) {
    const std::int64_t columns = 8 * tiles_of(c.head_dim);
    const std::int64_t q = c.cache_lhs
                               ? slab_bytes(c.block_m, columns, c.q_type)
                               : 2 * slab_bytes(c.block_m, slab_columns(c, c.head_dim), c.q_type);
    return slab_bytes(c.block_m, c.block_n, c.pv_reg) + q + c.simdgroups * c.block_m * 4;
  }
  if (c.kernel != "forward" || !c.stage_rhs) return 0;
  return 2 * std::max(slab_bytes(c.block_n, slab_columns(c, c.head_dim), c.k_type),
                      slab_bytes(c.block_n, slab_columns(c, c.head_dim_v), c.v_type));
}

std::int64_t registers_estimate(const Config& c) {
  const bool wide = shares_rows(c);
  const std::int64_t row_tiles = c.rows_per_simdgroup / 8;
  const std::int64_t key_tiles = c.block_n / 8 / (wide ? c.simdgroups : 1);
  const std::int64_t qk = bytes_of(c.qk_reg) / 2, pv = bytes_of(c.pv_reg) / 2;  // of one tile
  const std::int64_t O = row_tiles * tiles_of(c.block_dv) * 2;
  const std::int64_t S = row_tiles * key_tiles * 2;
  const bool held = c.cache_lhs && !wide;
  const std::int64_t Q = row_tiles * (held ? tiles_of(c.head_dim) : c.panel) * qk;
  const std::int64_t slab =
      wide ? (c.cache_lhs ? 0 : slab_registers(c, c.block_m, slab_columns(c, c.head_dim), c.q_type))
      : c.stage_rhs
          ? std::max(slab_registers(c, c.block_n, slab_columns(c, c.head_dim), c.k_type),
                     slab_registers(c, c.block_n, slab_columns(c, c.head_dim_v), c.v_type))
          : 0;
  const std::int64_t p_tiles = wide ? std::min(key_tiles, 8 / bytes_of(c.pv_reg)) : key_tiles;
  const std::int64_t scores = O + S + Q + c.panel * qk + slab;
  const std::int64_t values =
      O + row_tiles * p_tiles * pv + c.panel * pv + (held ? Q : 0) + (wide ? 0 : slab);
  return std::max(scores, values) + 3 * row_tiles + 24;
}

}  // namespace ingot::metal
