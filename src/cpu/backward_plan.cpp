// Which form the backward pass takes, its blocks and its memory. Pure.
#include <algorithm>
#include <string>

#include "algorithm/score.h"
#include "core/operands.hpp"
#include "cpu/backward.hpp"
#include "cpu/backward_layout.hpp"
#include "cpu/cpu_plan.hpp"

namespace ingot {
namespace {

constexpr std::int64_t widest_vector = 16;
constexpr std::int64_t usual_block_m = 128, largest_block_m = 256;
constexpr std::int64_t largest_block_n = 64;
constexpr std::int64_t largest_chunk = 512;
constexpr std::size_t memory_cap = std::size_t{256} << 20;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

std::string text(std::int64_t n) { return std::to_string(n); }

std::int64_t choose_block_n(const Problem& p) {
  return std::min(largest_block_n, round_up(std::max<std::int64_t>(p.seqlen_k, 1), widest_vector));
}

/// As many query rows as leave half of the L2 cache free: every tile reads and writes the
/// accumulators of its keys, which come from further away, so the more rows a block has the less
/// often that happens. But eight blocks at least, where 128 rows each allow it: threads share them.
std::int64_t choose_block_m(const Problem& p, std::int64_t block_n, std::size_t l2_bytes) {
  const std::int64_t rows = round_up(std::max<std::int64_t>(p.seqlen_q, 1), widest_vector);
  const std::int64_t eighth = round_up(ceil_div(rows, 8), widest_vector);
  std::int64_t block_m = std::min(rows, std::clamp(eighth, usual_block_m, largest_block_m));
  const auto bytes = [&] { return make_backward_layout(p, block_m, block_n, 0).total * 4; };
  while (block_m > widest_vector && bytes() > static_cast<std::int64_t>(l2_bytes / 2)) {
    block_m = round_up(block_m / 2, widest_vector);
  }
  return block_m;
}

std::size_t bytes(const Problem& p, std::int64_t workers, const BackwardLayout& layout) {
  return static_cast<std::size_t>(split_lse_floats(p) + workers * layout.total) * sizeof(float);
}

/// Time of the fused form over that of two passes is rounds x threads / units against 7/5 (products
/// per tile).
bool fused_is_faster(std::int64_t units, std::int64_t threads) {
  return 5 * ceil_div(units, threads) * threads <= 7 * units;
}

PassPlan fused(const Problem& p, const Config& config, std::int64_t threads) {
  PassPlan pass;
  pass.config = config;
  pass.config.kernel = "backward_fused";
  pass.units = p.batch * p.num_heads_kv;
  pass.workspace_bytes = bytes(p, std::min(threads, pass.units), backward_layout(p, pass));
  return pass;
}

PassPlan two_pass(const Problem& p, const Config& config, std::int64_t threads) {
  PassPlan pass;
  pass.config = config;
  pass.config.kernel = "backward_two_pass";
  // Long chunks pack a block of query rows less often; four chunks per thread keep the threads busy
  // to the end.
  const std::int64_t cols = round_up(p.seqlen_k, config.block_n);
  const std::int64_t heads = p.batch * p.num_heads_kv;
  const std::int64_t share = round_up(ceil_div(cols * heads, 4 * threads), config.block_n);
  const std::int64_t longest =
      std::clamp(share, config.block_n, std::max(largest_chunk, config.block_n));
  pass.config.split_k = std::max<std::int64_t>(ceil_div(p.seqlen_k, longest), 1);
  const BackwardLayout layout = backward_layout(p, pass);
  const std::int64_t units_dq = p.batch * p.num_heads * ceil_div(p.seqlen_q, config.block_m);
  const std::int64_t units_dkv = heads * (p.seqlen_k == 0 ? 1 : ceil_div(p.seqlen_k, layout.chunk));
  pass.units = units_dq + units_dkv;
  pass.workspace_bytes = bytes(p, std::min(threads, std::max(units_dq, units_dkv)), layout);
  return pass;
}

void explain_blocks(PassPlan& pass, const Problem& p, const BackwardLayout& layout) {
  pass.why.push_back("blocks of " + text(layout.block_m) + " query rows x " + text(layout.block_n) +
                     " keys: the tiles of one block take at most half of the L2 cache");
  if (pass.config.masked)
    pass.why.push_back("tiles outside the mask are skipped; those on its edge are tested per pair");
  pass.why.push_back(pass.config.convert_kv
                         ? "k and v are copied to f32 tiles"
                         : "f32 keys and values are read where they are, unless strides forbid it");
  if (p.parts.any()) {
    pass.why.push_back(
        names_of(p.parts) + ": by passes over a tile of scores in the L1 cache" +
        (p.parts.bias ? "; dbias by units of its own, which compute its scores again" : ""));
  }
  pass.why.push_back("sums are f32 and rounded once, when dq, dk and dv are stored");
  pass.why.push_back("rows of |lse| beyond " + text(large_lse) +
                     " are summed again: an f32 number no longer holds their weights");
}

}  // namespace

BackwardLayout make_backward_layout(const Problem& problem, std::int64_t block_m,
                                    std::int64_t block_n, std::int64_t chunk) {
  BackwardLayout l;
  l.block_m = block_m;
  l.block_n = block_n;
  l.ld_q = padded_row(problem.head_dim);
  l.ld_v = padded_row(problem.head_dim_v);
  l.ld_m = padded_row(block_m);
  l.chunk = chunk;
  const auto take = [&l](std::int64_t floats) {
    const std::int64_t offset = l.total;
    l.total += round_up(floats, widest_vector);
    return offset;
  };
  l.q = take(block_m * l.ld_q);
  l.q_t = take(problem.head_dim * l.ld_m);
  l.dq_t = take(problem.head_dim * l.ld_m);
  l.dout = take(block_m * l.ld_v);
  l.dout_t = take(problem.head_dim_v * l.ld_m);
  l.lse = take(block_m);
  l.lse_low = take(block_m);
  l.delta = take(block_m);
  l.seen_first = take(block_m);
  l.seen_end = take(block_m);
  l.ones = take(block_m);
  l.k = take(block_n * l.ld_q);
  l.v = take(block_n * l.ld_v);
  l.p = take(block_n * l.ld_m);
  l.ds = take(block_n * l.ld_m);
  l.parts = make_part_tiles(problem.parts, block_n * l.ld_m, take);
  if (problem.parts.bias) l.dscore = take(block_n * l.ld_m);
  l.dk = take(chunk * l.ld_q);
  l.dv = take(chunk * l.ld_v);
  return l;
}

BackwardLayout backward_layout(const Problem& problem, const PassPlan& pass) {
  const Config& c = pass.config;
  const std::int64_t chunk = round_up(ceil_div(problem.seqlen_k, c.split_k), c.block_n);
  return make_backward_layout(problem, c.block_m, c.block_n, chunk);
}

PassPlan plan_backward(const Problem& problem, const CpuCaps& caps) {
  Config config;
  config.target = caps.target;
  config.head_dim = problem.head_dim;
  config.head_dim_v = problem.head_dim_v;
  config.block_n = choose_block_n(problem);
  config.block_m = choose_block_m(problem, config.block_n, caps.l2_bytes);
  config.masked = is_masked(make_score_params(problem.scale, problem.softcap, problem.seqlen_q,
                                              problem.seqlen_k, static_cast<int>(problem.causal),
                                              problem.window_left, problem.window_right)) ||
                  problem.parts.mask;
  config.softcap = problem.softcap > 0;
  config.convert_kv = problem.k != Dtype::f32 || problem.v != Dtype::f32;

  const std::int64_t threads = std::max<std::int64_t>(caps.threads, 1);
  const std::int64_t heads = problem.batch * problem.num_heads_kv;
  PassPlan one = fused(problem, config, threads);
  const bool fits = one.workspace_bytes <= memory_cap;
  PassPlan pass =
      fits && fused_is_faster(heads, threads) ? std::move(one) : two_pass(problem, config, threads);
  if (pass.config.kernel == "backward_fused") {
    pass.why.push_back("fused: each of " + text(heads) +
                       " (batch, kv head) pairs is one unit for " + text(threads) +
                       " threads; dk and dv are summed in the workspace");
  } else if (!fits) {
    pass.why.push_back(
        "two passes: the f32 sums of dk and dv of the fused form exceed the cap of " +
        text(memory_cap >> 20) + " MiB");
  } else {
    pass.why.push_back("two passes: " + text(heads) + " (batch, kv head) pairs cannot keep " +
                       text(threads) + " threads busy; 7 products per tile instead of 5");
  }
  explain_blocks(pass, problem, backward_layout(problem, pass));
  return pass;
}

}  // namespace ingot
