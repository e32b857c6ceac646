// Tiles of kernels/delta.cuh, backward_dq.cuh, backward_dkv.cuh.
#include <algorithm>

#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t most_chunk = 128;

std::int64_t pieces(std::int64_t columns, std::int64_t chunk) { return ceil_div(columns, chunk); }

/// BackwardShape::whole: B1 and B2 come together.
bool is_whole(const Config& c) {
  return c.resident && c.head_dim <= c.chunk && c.head_dim_v <= c.chunk_v;
}

std::int64_t backward_bytes(const Config& c) {
  const std::int64_t a1 = tile_elements(c, c.block_m, c.chunk);
  const std::int64_t a2 = tile_elements(c, c.block_m, c.chunk_v);
  const std::int64_t b1 = tile_elements(c, c.block_n, c.chunk) + (c.resident ? 0 : a1);
  const std::int64_t b2 = tile_elements(c, c.block_n, c.chunk_v) + (c.resident ? 0 : a2);
  const std::int64_t a =
      c.resident ? pieces(c.head_dim, c.chunk) * a1 + pieces(c.head_dim_v, c.chunk_v) * a2 : 0;
  const std::int64_t slot = is_whole(c) ? b1 + b2 : std::max(b1, b2);
  // RowStatistics: of the queries of a moving tile, or (static) of the stationary ones.
  const std::int64_t statistics =
      (c.kernel == "backward_dkv" ? c.stages * c.block_n : c.block_m) * 12;
  const std::int64_t sums = c.kernel == "backward_dbias" ? c.warps * c.block_n * 4 : 0;
  return (a + c.stages * slot) * element_bytes(c) + statistics + sums;
}

/// Cuts the columns of the sums into slices whose accumulators fit the registers.
void cut_columns(Config& c, std::int64_t most_columns) {
  const std::int64_t chunks = pieces(c.head_dim, c.chunk);
  const std::int64_t chunks_v = pieces(c.head_dim_v, c.chunk_v);
  const bool has_v = c.kernel == "backward_dkv";
  const std::int64_t per_slice = std::max<std::int64_t>(most_columns / c.chunk, 1);
  const std::int64_t per_slice_v = std::max<std::int64_t>(most_columns / c.chunk_v, 1);
  const std::int64_t slices =
      std::max(ceil_div(chunks, per_slice), has_v ? ceil_div(chunks_v, per_slice_v) : 1);
  c.columns = ceil_div(chunks, slices) * c.chunk;
  c.columns_v = has_v ? ceil_div(chunks_v, slices) * c.chunk_v : 0;
}

/// The largest tiles that fit, of at most `block_n` rows of the moving side.
Config tiles(Config c, const DeviceCaps& caps, std::int64_t rows_of_warp, std::int64_t most_columns,
             std::int64_t block_n) {
  const bool f32 = is_f32(c);
  const std::int64_t widest = f32 ? most_chunk / 2 : most_chunk;
  c.stages = 2;
  c.block_n = block_n;
  c.warps = 4;
  c.block_m = rows_of_warp * c.warps;
  c.chunk = chunk_of(c.head_dim, std::min(widest, most_columns));
  c.chunk_v = chunk_of(c.head_dim_v, std::min(widest, most_columns));
  const auto fits = [&] { return backward_bytes(c) <= caps.shared_bytes; };
  if (!fits()) c.block_m = mma_rows * c.warps;
  if (!fits()) c.block_n = 32;
  if (!fits()) c.warps = 2, c.block_m = mma_rows * c.warps;
  if (!fits()) c.resident = false;
  if (!fits()) c.chunk = chunk_of(c.head_dim, 64), c.chunk_v = chunk_of(c.head_dim_v, 64);
  cut_columns(c, most_columns);
  return c;
}

/// Tiles of queries and keys both move, in chunks; there is no sum but that of the tile.
Config dbias_tiles(Config c, const Problem& p, const DeviceCaps& caps) {
  const std::int64_t widest = is_f32(c) ? most_chunk / 2 : most_chunk;
  c.kernel = "backward_dbias";
  c.output = type_of(p.parts.dbias_dtype);
  c.resident = false;
  c.stages = 2;
  c.warps = 4;
  c.block_m = mma_rows * c.warps;
  c.block_n = 32;
  c.chunk = chunk_of(c.head_dim, widest);
  c.chunk_v = chunk_of(c.head_dim_v, widest);
  const auto fits = [&] { return backward_bytes(c) <= caps.shared_bytes; };
  if (!fits()) c.chunk = chunk_of(c.head_dim, 64), c.chunk_v = chunk_of(c.head_dim_v, 64);
  return c;
}

Config dsinks_config(Config c, const Problem& p) {
  c.kernel = "backward_dsinks";
  c.output = type_of(p.parts.dsinks_dtype);
  c.warps = 8;
  return c;
}

}  // namespace

MmaBackwardChoice choose_mma_backward(const Problem& p, const DeviceCaps& caps) {
  Config common = common_config(p, caps);
  common.dout_type = type_of(p.dout);
  common.dq_type = type_of(p.dq), common.dk_type = type_of(p.dk), common.dv_type = type_of(p.dv);
  if (p.dout != p.q) common.element = type_of(Dtype::f32);
  MmaBackwardChoice choice{common, common, common, {}, {}};
  if (p.parts.bias) choice.dbias = dbias_tiles(common, p, caps);
  if (p.parts.sinks) choice.dsinks = dsinks_config(common, p);
  choice.delta.kernel = "delta";
  choice.delta.warps = 4;
  choice.delta.block_m = choice.delta.warps;
  choice.dq.kernel = "backward_dq";
  choice.dkv.kernel = "backward_dkv";
  // Rows of a warp and keys or queries of a tile: what was fastest without spilling registers.
  const std::int64_t widest = std::max(p.head_dim, p.head_dim_v), two = 2 * mma_rows;
  const bool hopper = caps.sm == 90, capped = p.softcap > 0;
  if (common.has_pair_parts()) {
    const std::int64_t most_columns = is_f32(common) ? 64 : 128;
    choice.dq = tiles(choice.dq, caps, mma_rows, most_columns, 32);
    choice.dkv = tiles(choice.dkv, caps, mma_rows, most_columns, 32);
  } else if (is_f32(common)) {
    choice.dq = tiles(choice.dq, caps, widest > 128 || !hopper ? mma_rows : two, 128, 32);
    choice.dkv = tiles(choice.dkv, caps, widest > 64 || !hopper ? mma_rows : two, 128, 32);
  } else if (widest > 128) {
    choice.dq = tiles(choice.dq, caps, mma_rows, 256, hopper ? 64 : 32);
    const bool uneven = p.head_dim != p.head_dim_v;
    const std::int64_t queries = uneven ? 32 : capped || widest > 256 ? 48 : 64;
    choice.dkv = tiles(choice.dkv, caps, mma_rows, 128, hopper ? queries : 32);
  } else {
    choice.dq = widest > 64 ? tiles(choice.dq, caps, mma_rows, 128, 64)
                            : tiles(choice.dq, caps, two, 128, 32);
    choice.dkv = widest > 64 || capped
                     ? tiles(choice.dkv, caps, mma_rows, 128, capped && !hopper ? 32 : 48)
                     : tiles(choice.dkv, caps, two, 128, 32);
  }
  return choice;
}

Needs needs_mma_backward(const Config& c) {
  if (c.kernel == "delta" || c.kernel == "backward_dsinks") return {c.warps * lanes, 0};
  std::int64_t fixed = c.kernel == "backward_dkv" ? 0 : c.block_m * 12;
  if (c.kernel == "backward_dbias") fixed += c.warps * c.block_n * 4;
  return {c.warps * lanes, backward_bytes(c) - fixed};
}

}  // namespace ingot::cuda
