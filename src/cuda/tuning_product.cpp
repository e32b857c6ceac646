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
  c.stages = std::min(most_stages, (most_shared - slack) / stage_bytes(c));
  return c;
}

// As ProductShape in kernels/product_shape.cuh.
Needs needs_product(const Config& c) {
  return {128 * (c.warpgroups + 1), c.stages * stage_bytes(c) + slack};
}

}  // namespace ingot::cuda
