// Tiles of kernels/product_sm90.cuh.
#include <algorithm>

#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t box_bytes = 64 * 128, most_shared = 232448;
constexpr std::int64_t slack = 1024 + 128;  // to align the start; barriers
constexpr std::int64_t most_stages = 5;

std::int64_t stage_bytes(const Config& c) {
  return c.planes * (c.block_m / 64 + ceil_div(c.columns, 64)) * box_bytes;
}

std::int64_t stages_of(const Config& c) {
  return std::min(most_stages, (most_shared - slack) / stage_bytes(c));
}

}  // namespace

// A warpgroup holds the sums of 64 or 128 rows. Loads of a stage in bytes a clock at full tensor
// rate must stay below the 45 that a multiprocessor's copy engine takes: hence large tiles.
Config choose_product(const Problem& p, std::int64_t dim, Dtype output, bool by_keys,
                      std::int64_t planes) {
  Config c;
  c.kernel = "product_sm90";
  c.arch = "sm_90a";
  c.element = type_of(p.q == Dtype::f32 ? Dtype::bf16 : p.q);
  c.output = type_of(output);
  c.planes = planes;
  c.masked = is_masked(p);
  c.by_keys = by_keys;
  const std::int64_t widest = planes > 1 ? 128 : 256;
  c.columns = round_up(ceil_div(dim, ceil_div(dim, widest)), 16);
  const bool three = planes == 1 && c.columns > 192;
  c.warpgroups = three ? 3 : 2;
  c.block_m = planes > 1 ? 128 : three ? 192 : 256;
  c.stages = stages_of(c);
  return c;
}

// Tiles of 192 or 256 rows leave more of the last round of multiprocessors idle than those of 128,
// which take longer a row: their loads come at what a copy engine gives. Under a mask a tile takes
// from nothing to the whole, the long ones first: the longest bounds the time.
void fill_rounds(Config& c, std::int64_t rows, std::int64_t heads, std::int64_t multiprocessors) {
  if (c.planes > 1 || c.block_m <= 128) return;
  const double per_row = c.columns > 192 ? 1.08 : c.columns > 128 ? 1.2 : 1.3;
  const auto cost = [&](std::int64_t block_m, double one) {
    const std::int64_t tiles = ceil_div(rows, block_m) * heads;
    const double rounds =
        c.masked
            ? std::max(1.0, 0.5 * static_cast<double>(tiles) / static_cast<double>(multiprocessors))
            : static_cast<double>(ceil_div(tiles, multiprocessors));
    return rounds * static_cast<double>(block_m) * one;
  };
  if (cost(128, per_row) >= cost(c.block_m, 1.0)) return;
  c.block_m = 128;
  c.warpgroups = 2;
  c.stages = stages_of(c);
}

// As ProductShape in kernels/product_shape.cuh.
Needs needs_product(const Config& c) {
  return {128 * (c.warpgroups + 1), c.stages * stage_bytes(c) + slack};
}

}  // namespace ingot::cuda
