#include "cpu/cpu_plan.hpp"

#include <algorithm>
#include <string>

#include "algorithm/score.h"
#include "core/error.hpp"
#include "cpu/backward.hpp"
#include "cpu/forward.hpp"

namespace ingot {
namespace {

// A kernel works on this many vectors of query rows at a time (kTileVecs of tile-inl.h).
constexpr std::int64_t panel_vectors = 2;
// A tile of keys and values comes from afar, or is converted, once for this many panels.
constexpr std::int64_t panels_per_block = 4;
// With at most this many rows that read the same keys, lanes hold dims instead of rows.
constexpr std::int64_t most_decode_rows = 8;
// Keys are split until there are this many units, so that many threads find work; never into less
// than this many keys.
constexpr std::int64_t enough_units = 32;
constexpr std::int64_t fewest_keys_per_chunk = 1024;
// An f32 sum of equal terms stops growing at 2^24 of them; those of chunks are added afterwards.
constexpr std::int64_t most_keys_per_chunk = 1 << 22;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

bool needs_conversion(const Problem& p) { return p.k != Dtype::f32 || p.v != Dtype::f32; }

std::int64_t widest_head(const Problem& p) { return std::max(p.head_dim, p.head_dim_v); }

// Query rows that could share a block: all rows of a head, or, where these are few, those of its
// group of heads.
std::int64_t rows_to_pack(const Problem& p) { return p.seqlen_q * (p.num_heads / p.num_heads_kv); }

bool is_few_rows(const Problem& p) { return rows_to_pack(p) <= most_decode_rows; }

std::int64_t choose_block_m(const Problem& p, const CpuCaps& caps) {
  if (is_few_rows(p)) return std::max<std::int64_t>(rows_to_pack(p), 1);
  const std::int64_t longest = panel_vectors * caps.lanes * panels_per_block;
  const std::int64_t rows = p.seqlen_q * 2 <= longest ? rows_to_pack(p) : p.seqlen_q;
  return std::clamp(round_up(rows, caps.lanes), caps.lanes, longest);
}

std::int64_t choose_block_n(const Problem& p) {
  const std::int64_t widest = widest_head(p);
  const std::int64_t keys = widest > 512 ? 32 : widest <= 64 || is_few_rows(p) ? 64 : 128;
  return std::clamp<std::int64_t>(p.seqlen_k, 1, keys);
}

std::int64_t choose_split(const Problem& p, std::int64_t block_m) {
  const std::int64_t blocks = make_forward_grid(p, block_m, 1).blocks;
  if (blocks == 0) return 1;
  const std::int64_t wanted = ceil_div(enough_units, blocks);
  if (!is_few_rows(p)) {
    return std::clamp<std::int64_t>(p.seqlen_k / fewest_keys_per_chunk, 1, wanted);
  }
  const std::int64_t split =
      std::clamp<std::int64_t>(p.seqlen_k / (fewest_keys_per_chunk / 2), 1, wanted);
  return std::max(split, ceil_div(p.seqlen_k, most_keys_per_chunk));
}

std::string text(std::int64_t n) { return std::to_string(n); }

std::string block_m_sentence(const Config& c, const CpuCaps& caps) {
  const std::string lanes = text(caps.lanes) + " lanes of " + std::string(caps.target);
  if (is_decode(c)) {
    return "decode: " + text(c.block_m) + " query rows read the same keys; dims lie in the " +
           lanes + ", keys and values are streamed once";
  }
  return "block_m " + text(c.block_m) + ": query rows lie in the " + lanes + ", " +
         text(panel_vectors) + " vectors to a panel, up to " + text(panels_per_block) +
         " panels share a tile of keys";
}

void explain(PassPlan& pass, const Problem& p, const CpuCaps& caps) {
  const Config& c = pass.config;
  const ForwardGrid grid = make_forward_grid(p, c.block_m, c.split_k);
  pass.why.push_back(block_m_sentence(c, caps));
  pass.why.push_back("block_n " + text(c.block_n) + ": the scores of a panel stay in the L1 cache");
  if (grid.heads_per_block > 1) {
    pass.why.push_back(text(grid.heads_per_block) +
                       " query heads of a kv head share one block: they read the same keys");
  }
  if (c.split_k > 1) {
    pass.why.push_back("split_k " + text(c.split_k) + ": " + text(grid.blocks) +
                       " blocks of query rows alone would leave threads idle; partial results are "
                       "merged in order");
  }
  if (c.convert_kv && is_decode(c)) {
    pass.why.push_back("convert_kv: keys or values are 16-bit and become f32 in registers");
  } else if (c.convert_kv) {
    pass.why.push_back(
        "convert_kv: keys or values are 16-bit; tiles of them become f32 once per block");
  }
  if (c.masked) {
    pass.why.push_back(
        "masked: tiles outside the mask are skipped, those on its edge are tested per pair");
  }
  if (p.parts.any()) {
    pass.why.push_back(names_of(p.parts) + ": by passes over a tile of scores in the L1 cache");
  }
}

}  // namespace

PassPlan plan_forward(const Problem& problem, const CpuCaps& caps) {
  PassPlan pass;
  Config& c = pass.config;
  c.kernel = is_few_rows(problem) ? "decode" : "forward";
  c.target = caps.target;
  c.head_dim = problem.head_dim;
  c.head_dim_v = problem.head_dim_v;
  c.block_m = choose_block_m(problem, caps);
  c.block_n = choose_block_n(problem);
  c.split_k = choose_split(problem, c.block_m);
  c.masked = is_masked(make_score_params(problem.scale, problem.softcap, problem.seqlen_q,
                                         problem.seqlen_k, static_cast<int>(problem.causal),
                                         problem.window_left, problem.window_right)) ||
             problem.parts.mask;
  c.softcap = problem.softcap > 0;
  c.convert_kv = needs_conversion(problem);
  const ForwardGrid grid = make_forward_grid(problem, c.block_m, c.split_k);
  pass.units = grid.units();
  const std::int64_t workers =
      std::min<std::int64_t>(caps.threads, std::max<std::int64_t>(pass.units, 1));
  const std::int64_t scratch = is_decode(c)
                                   ? make_decode_layout(problem.parts, c, caps.lanes).total
                                   : make_forward_layout(problem.parts, c, caps.lanes).total;
  std::int64_t floats = workers * scratch;
  if (c.split_k > 1) floats += partials_floats(grid, c);
  pass.workspace_bytes = static_cast<std::size_t>(floats) * sizeof(float);
  explain(pass, problem, caps);
  return pass;
}

Plan plan_cpu(const Problem& problem, const CpuCaps& caps) {
  const Dtype dtypes[] = {problem.q,    problem.k,  problem.v,  problem.o,
                          problem.dout, problem.dq, problem.dk, problem.dv};
  if (std::ranges::find(dtypes, Dtype::f64) != std::end(dtypes)) {
    throw Error(
        Code::unsupported,
        "unsupported: dtype f64: device cpu computes f32, f16 and bf16; device reference does f64");
  }
  Plan plan;
  plan.problem = problem;
  plan.device = "cpu";
  plan.forward = plan_forward(problem, caps);
  plan.backward = plan_backward(problem, caps);
  return plan;
}

ForwardGrid make_forward_grid(const Problem& p, std::int64_t block_m, std::int64_t split_k) {
  ForwardGrid grid;
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  grid.split_k = split_k;
  grid.keys_per_chunk = ceil_div(p.seqlen_k, split_k);
  if (p.seqlen_q == 0 || p.batch == 0) return grid;
  grid.heads_per_block = std::clamp<std::int64_t>(block_m / p.seqlen_q, 1, group);
  grid.blocks_per_group = ceil_div(group, grid.heads_per_block);
  grid.row_blocks = ceil_div(p.seqlen_q, block_m);
  grid.blocks = p.batch * p.num_heads_kv * grid.blocks_per_group * grid.row_blocks;
  return grid;
}

RowBlock row_block(const Problem& p, const ForwardGrid& grid, std::int64_t block_m,
                   std::int64_t index) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  const std::int64_t row_index = grid.row_blocks - 1 - index % grid.row_blocks;
  index /= grid.row_blocks;
  const std::int64_t in_group = index % grid.blocks_per_group;
  index /= grid.blocks_per_group;
  RowBlock block;
  block.batch = index / p.num_heads_kv;
  block.head = index % p.num_heads_kv * group + in_group * grid.heads_per_block;
  block.heads = std::min(grid.heads_per_block, group - in_group * grid.heads_per_block);
  block.row = row_index * block_m;
  block.rows = std::min(block_m, p.seqlen_q - block.row);
  return block;
}

DecodeLayout make_decode_layout(const Parts& parts, const Config& c, std::int64_t lanes) {
  DecodeLayout l;
  l.ld_q = round_up(c.head_dim, lanes);
  l.ld_v = round_up(c.head_dim_v, lanes);
  l.ld_s = round_up(c.block_n, lanes);
  const auto take = [&l](std::int64_t floats) {
    const std::int64_t offset = l.total;
    l.total += round_up(floats, 16);
    return offset;
  };
  l.q = take(c.block_m * l.ld_q);
  l.o = take(c.block_m * l.ld_v);
  l.scores = take(c.block_m * l.ld_s);
  l.row_max = take(c.block_m);
  l.row_sum = take(c.block_m);
  l.k = take(c.block_n * l.ld_q);
  l.v = take(c.block_n * l.ld_v);
  l.parts = make_part_tiles(parts, c.block_m * l.ld_s, take);
  return l;
}

ForwardLayout make_forward_layout(const Parts& parts, const Config& c, std::int64_t lanes) {
  ForwardLayout l;
  l.panel = std::min(c.block_m, panel_vectors * lanes);
  l.panels = ceil_div(c.block_m, l.panel);
  l.panel_floats = round_up(l.panel * (c.head_dim + c.head_dim_v + 2), 16);
  const auto take = [&l](std::int64_t floats) {
    const std::int64_t offset = l.total;
    l.total += round_up(floats, 16);
    return offset;
  };
  take(l.panels * l.panel_floats);
  l.scores = take(l.panel * (c.block_n + 6));
  // An odd number of cache lines to a row: rows next to each other do not compete for the same few
  // lines of the L1 cache.
  l.ld_k = 16 * (ceil_div(c.head_dim, 16) | 1);
  l.ld_v = 16 * (ceil_div(c.head_dim_v, 16) | 1);
  l.k = take(c.block_n * l.ld_k);
  l.v = take(c.block_n * l.ld_v);
  l.parts = make_part_tiles(parts, c.block_n * l.panel, take);
  return l;
}

}  // namespace ingot
