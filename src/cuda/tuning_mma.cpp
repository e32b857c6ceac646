// Tiles of kernels/forward_mma.cuh, decode.cuh, combine.cuh. They run every problem; what is chosen
// here decides speed, registers and shared memory alone.
#include "cuda/tuning_mma.hpp"

#include <algorithm>
#include <climits>

#include "algorithm/score.h"

namespace ingot::cuda {
namespace {

constexpr std::int64_t decode_rows = 16;      // of the one tile of decode.cuh
constexpr std::int64_t most_splits = 512;     // more would take long to merge
constexpr std::int64_t block_reserve = 1024;  // shared memory the system keeps of every block

/// How the columns of o are cut: slices of blocks of threads, chunks of a slice.
void cut_columns(Config& c, std::int64_t most_columns, std::int64_t most_chunk) {
  const std::int64_t slices = ceil_div(c.head_dim_v, most_columns);
  const std::int64_t slice = round_up(ceil_div(c.head_dim_v, slices), mma_cols);
  c.chunk_v = chunk_of(slice, most_chunk);
  c.columns = round_up(slice, c.chunk_v);
}

std::int64_t q_elements(const Config& c) {
  return ceil_div(c.head_dim, c.chunk) * tile_elements(c, c.block_m, c.chunk);
}
std::int64_t slot_elements(const Config& c) {
  const std::int64_t k = tile_elements(c, c.block_n, c.chunk) +
                         (c.resident ? 0 : tile_elements(c, c.block_m, c.chunk));
  return std::max(k, tile_elements(c, c.block_n, c.chunk_v));
}
/// Of one team of warps that share a ring.
std::int64_t team_bytes(const Config& c) {
  return ((c.resident ? q_elements(c) : 0) + c.stages * slot_elements(c)) * element_bytes(c);
}

std::int64_t decode_bytes(const Config& c) {
  const std::int64_t numbers = c.block_m / 8 * (c.columns / 4 + 2) * lanes;  // struct SharedRows
  return std::max(c.warps * team_bytes(c), (c.warps - 1) * numbers * 4);
}

/// Rows in tiles of `rows` per warp: o of a warp is to fit 128 registers of a lane.
void set_rows(Config& c, std::int64_t rows_of_warp, std::int64_t warps) {
  c.warps = warps;
  c.block_m = rows_of_warp * warps;
}

Config forward_config(const Problem& p, const DeviceCaps& caps, std::int64_t rows, bool packed) {
  Config c = common_config(p, caps);
  c.packed = packed;
  c.kernel = "forward_mma";
  c.stages = 2;
  const bool f32 = is_f32(c);
  // A warp reads its tiles of K and V for 32 rows at a time where o of so many fits the registers.
  // Parts take registers of their own.
  const bool parts = c.has_pair_parts();
  const bool two = !parts && (f32 || p.head_dim_v <= 128);
  const std::int64_t rows_of_warp = two ? 2 * mma_rows : mma_rows;
  c.chunk = chunk_of(p.head_dim, f32 ? 64 : 128);
  cut_columns(c, f32 ? 128 : 256, f32 ? 64 : 128);
  // With o and Q this large, 64 keys stay within 255 registers on Hopper alone, if at all.
  const bool tight =
      p.head_dim_v > 96 && p.head_dim_v <= 128 && (caps.sm != 90 || c.softcap || p.head_dim > 128);
  const bool tighter = tight && caps.sm != 90 && (c.softcap || packed);
  c.block_n = f32 ? (c.columns > 64 ? 32 : 64) : tighter ? 32 : tight ? 48 : 64;
  if (parts) c.block_n = std::min<std::int64_t>(c.block_n, p.head_dim_v > 128 ? 32 : 48);
  set_rows(c, rows_of_warp, 4);
  while (c.warps > 1 && c.block_m / 2 >= rows) set_rows(c, rows_of_warp, c.warps / 2);
  const auto fits = [&] { return team_bytes(c) <= caps.shared_bytes; };
  if (!fits() && c.warps == 4) set_rows(c, mma_rows, 4);
  if (!fits()) c.block_n = 32;
  if (!fits()) c.resident = false;
  if (!fits()) c.chunk = chunk_of(p.head_dim, 64), cut_columns(c, c.columns, 64);
  return c;
}

Config decode_config(const Problem& p, const DeviceCaps& caps) {
  Config c = common_config(p, caps);
  c.kernel = "decode";
  c.packed = p.num_heads != p.num_heads_kv;
  c.block_m = decode_rows;
  c.block_n = mma_cols;
  c.warps = 4;
  c.chunk = chunk_of(p.head_dim, is_f32(c) ? 64 : 128);
  cut_columns(c, 256, is_f32(c) ? 64 : 128);
  // Two blocks of threads on a multiprocessor, their rings as deep as memory allows.
  const std::int64_t half = (caps.shared_bytes + block_reserve) / 2 - block_reserve;
  c.stages = 4;
  while (c.stages > 3 && decode_bytes(c) > half) --c.stages;
  while (c.warps > 1 && decode_bytes(c) > caps.shared_bytes) c.warps /= 2;
  while (c.stages > 2 && decode_bytes(c) > caps.shared_bytes) --c.stages;
  return c;
}

/// As DecodeShape in kernels/decode_sm90.cuh.
std::int64_t engine_bytes(const Config& c) {
  const std::int64_t panels = ceil_div(c.head_dim, 64) + ceil_div(c.head_dim_v, 64);
  const std::int64_t stage = panels * c.block_n * c.warps * 128 + 2 * 8;  // and two barriers
  const std::int64_t q = tile_elements(c, c.block_m, round_up(c.head_dim, mma_cols));
  constexpr std::int64_t to_align = 1024;
  return c.stages * stage + q * element_bytes(c) + to_align;
}

bool has_engine(const Problem& p, const DeviceCaps& caps, const Config& decode) {
  if (caps.sm != 90 || is_f32(decode) || std::max(p.head_dim, p.head_dim_v) > 256) return false;
  return p.seqlen_k > 0 && p.seqlen_k <= INT_MAX / 2;  // places of tiles are of 32 bits
}

/// Keeps about 96 KB of loads under way on a multiprocessor, which reads fastest (docs/hopper.md),
/// and is small enough for a second block, which reads while the first one starts or ends.
Config engine_config(const Config& decode) {
  constexpr std::int64_t bytes_ahead = (96 << 10) + 512;  // of tiles, and their barriers
  Config c = decode;
  c.kernel = "decode_sm90";
  c.columns = round_up(c.head_dim_v, mma_cols);
  c.chunk = c.chunk_v = 0;
  c.warps = std::max(c.head_dim, c.head_dim_v) > 128 ? 2 : 4;
  c.stages = 1;
  const std::int64_t one = engine_bytes(c);
  c.stages = 2;
  const std::int64_t stage = engine_bytes(c) - one;
  c.stages = std::max<std::int64_t>(bytes_ahead / stage, 2);
  return c;
}

/// Pieces of the keys, so that `units` blocks of threads, `resident` of which a multiprocessor
/// takes at a time, fill the device: the fewest that leave next to none of it idle, or the best. A
/// piece has at least `least` of `blocks` blocks of keys.
std::int64_t choose_splits(std::int64_t units, std::int64_t slots, std::int64_t blocks,
                           std::int64_t least) {
  const std::int64_t most = std::clamp<std::int64_t>(blocks / least, 1, most_splits);
  std::int64_t best = 1;
  double best_use = 0;
  for (std::int64_t splits = 1; splits <= most; ++splits) {
    const std::int64_t work = units * splits;
    const double use = static_cast<double>(work) / static_cast<double>(round_up(work, slots));
    if (use > best_use + 1e-9) best = splits, best_use = use;
    if (best_use >= 0.96) break;
  }
  return best;
}

Config combine_config(const Config& main) {
  Config c;
  c.kernel = "combine";
  c.arch = main.arch;
  c.output = main.output;
  c.head_dim_v = main.head_dim_v;
  c.block_m = c.warps = 1;
  return c;
}

}  // namespace

TypeName type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return {"f16"};
    case Dtype::bf16:
      return {"bf16"};
    default:
      return {"float"};
  }
}

std::int64_t chunk_of(std::int64_t columns, std::int64_t most) {
  std::int64_t best = mma_cols, best_total = round_up(columns, mma_cols);
  for (std::int64_t chunk = mma_cols; chunk <= most; chunk += mma_cols) {
    const std::int64_t total = round_up(columns, chunk);
    if (total <= best_total) best = chunk, best_total = total;
  }
  // Narrow chunks cost a barrier each; up to an eighth of padding is the lesser evil.
  if (best < 48 && columns > 48) {
    best = round_up(ceil_div(columns, ceil_div(columns, most)), mma_cols);
  }
  return best;
}

std::string_view arch_of(const DeviceCaps& caps) {
  struct Target {
    int sm;
    std::string_view arch;
  };
  constexpr Target targets[] = {{120, "sm_120"}, {110, "sm_110"}, {100, "sm_100"}, {90, "sm_90a"},
                                {89, "sm_89"},   {86, "sm_86"},   {80, "sm_80"}};
  for (const Target& target : targets) {
    if (caps.sm >= target.sm) return target.arch;
  }
  return "sm_80";
}

void set_parts(Config& c, const Problem& p) {
  const Parts& parts = p.parts;
  c.alibi = parts.alibi, c.bias = parts.bias, c.mask = parts.mask, c.prefix = parts.prefix;
  c.sinks = parts.sinks, c.dropout = parts.dropout > 0.0F;
  if (parts.bias) c.bias_type = type_of(parts.bias_dtype);
  if (parts.sinks) c.sinks_type = type_of(parts.sinks_dtype);
}

Config common_config(const Problem& p, const DeviceCaps& caps) {
  Config c;
  c.arch = arch_of(caps);
  c.output = type_of(p.o);
  c.q_type = type_of(p.q), c.k_type = type_of(p.k), c.v_type = type_of(p.v);
  c.element = p.q == p.k && p.k == p.v ? c.q_type : type_of(Dtype::f32);
  c.head_dim = p.head_dim, c.head_dim_v = p.head_dim_v;
  c.softcap = p.softcap > 0;
  c.resident = true;
  set_parts(c, p);
  c.masked =
      is_masked(make_score_params(p.scale, p.softcap, p.seqlen_q, p.seqlen_k,
                                  static_cast<int>(p.causal), p.window_left, p.window_right));
  return c;
}

MmaChoice choose_mma(const Problem& p, const DeviceCaps& caps) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  const std::int64_t rows = p.seqlen_q * group;
  const bool decode = rows <= decode_rows || (p.seqlen_q <= 4 && rows <= 2 * decode_rows);
  MmaChoice choice;
  Config& c = choice.config;
  if (decode) {
    c = decode_config(p, caps);
  } else {
    // Heads of a group share a tile where one of them alone would leave it half empty.
    const bool packed = group > 1 && p.seqlen_q < 64;
    c = forward_config(p, caps, packed ? rows : p.seqlen_q, packed);
  }
  const std::int64_t heads = p.batch * (c.packed ? p.num_heads_kv : p.num_heads);
  const std::int64_t units =
      heads * ceil_div(c.packed ? rows : p.seqlen_q, c.block_m) * ceil_div(p.head_dim_v, c.columns);
  const std::int64_t blocks = ceil_div(p.seqlen_k, c.block_n);
  const bool engine = decode && has_engine(p, caps, c);
  const std::int64_t slots = caps.sm_count * (engine ? 1 : 2);
  // Rows in plenty fill the device by themselves; few keys are not worth a second kernel.
  const bool fills = !decode && 2 * units > slots;
  choice.splits = fills ? 1 : choose_splits(units, slots, blocks, decode ? 2 * c.warps : 8);
  c.split = choice.splits > 1;
  if (c.split) choice.combine = combine_config(c);
  if (engine) choice.engine = engine_config(c);
  return choice;
}

Needs needs_mma(const Config& c) {
  if (c.kernel == "decode_sm90") return {(c.warps + 1) * lanes, engine_bytes(c)};
  if (c.kernel == "combine") return {c.warps * lanes, 0};
  return {c.warps * lanes, c.kernel == "decode" ? decode_bytes(c) : team_bytes(c)};
}

}  // namespace ingot::cuda
