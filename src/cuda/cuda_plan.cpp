#include "cuda/cuda_plan.hpp"

#include <algorithm>
#include <climits>
#include <string>

#include "core/error.hpp"
#include "cuda/kernels/mma_params.h"
#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t oldest_sm = 80;
constexpr std::int64_t most_blocks = INT_MAX;  // of a grid
constexpr std::int64_t l2_bytes = 32 << 20;    // of K and V that tiles in flight may share
constexpr std::int64_t split_threads = 256;    // 8 columns each

/// Rows that a tile of a head, or of a group of heads where packed, covers.
std::int64_t rows_of(const Problem& p, bool packed) {
  return p.seqlen_q * (packed ? p.num_heads / p.num_heads_kv : 1);
}

/// The grid is that of the largest tensor; the launches take as much of it as theirs has. The
/// workspace holds a flag, the terms, and what the kernel for operands with an Inf or NaN needs.
void add_split(const Problem& p, Sm90Forward& forward) {
  const std::int64_t rows_q = p.batch * p.num_heads * p.seqlen_q;
  const std::int64_t rows_k = p.batch * p.num_heads_kv * p.seqlen_k;
  const std::int64_t elements[] = {plane_elements(rows_q, p.head_dim),
                                   plane_elements(rows_k, p.head_dim),
                                   plane_elements(rows_k, p.head_dim_v)};
  Config config;
  config.kernel = "split";
  config.arch = forward.step.config.arch;
  config.planes = forward.step.config.planes;
  forward.split = make_step(config, {split_threads, 0},
                            ceil_div(*std::ranges::max_element(elements) / 8, split_threads));
  forward.workspace_bytes = workspace_alignment;
  for (const std::int64_t plane : elements) {
    forward.workspace_bytes +=
        static_cast<std::size_t>(plane * config.planes * size_bytes(Dtype::bf16));
  }
}

/// The row of this machine's table, where there is one. Throws where the tile cannot be had.
bool tune(Config& config, const TunedTable& tuned, const DeviceCaps& caps,
          Needs (*needs)(const Config&)) {
  if (!tuned.apply(config)) return false;
  if (config.cluster > 1 && (config.masked || config.planes > 1)) {
    throw Error(Code::unsupported,
                "unsupported: tuning table " + tuned.file() +
                    ": blocks of a cluster share tiles of one length and one plane, cluster must "
                    "be 1 with a mask or f32");
  }
  const std::int64_t bytes = needs(config).shared_bytes;
  if (bytes <= caps.shared_bytes) return true;
  throw Error(Code::unsupported, "unsupported: tuning table " + tuned.file() + ": a tile of " +
                                     std::string(config.kernel) + " needs " + text(bytes) +
                                     " bytes of shared memory, the device has " +
                                     text(caps.shared_bytes));
}

std::optional<Sm90Forward> plan_sm90(const Problem& p, const DeviceCaps& caps,
                                     const TunedTable& tuned, std::string& why) {
  std::optional<Config> config = choose_sm90(p, caps, why);
  if (!config) return std::nullopt;
  const bool is_tuned = tune(*config, tuned, caps, needs_sm90);
  Sm90Forward forward;
  const std::int64_t heads = p.batch * (config->packed ? p.num_heads_kv : p.num_heads);
  forward.tiles = ceil_div(rows_of(p, config->packed), config->block_m * config->cluster);
  forward.units = forward.tiles * heads;
  if (forward.units > most_blocks || p.seqlen_k > INT_MAX / 2 || p.seqlen_q > INT_MAX / 2) {
    why = "positions and tiles must fit 32 bits";
    return std::nullopt;
  }
  const std::int64_t bytes_per_head =
      p.seqlen_k * (p.head_dim + p.head_dim_v) * config->planes * size_bytes(Dtype::bf16);
  const std::int64_t sharing = config->packed ? 1 : p.num_heads / p.num_heads_kv;
  forward.heads_at_once =
      std::clamp<std::int64_t>(l2_bytes / std::max<std::int64_t>(bytes_per_head, 1) * sharing,
                               std::min(sharing, heads), heads);
  // Tiles under a mask differ in length: the device hands them out, the longest first. Equal ones
  // come head by head to blocks that stay, which load a tile while they end another.
  if (!config->masked) forward.heads_at_once = 1;
  const std::int64_t clusters =
      config->masked ? forward.units : std::min(forward.units, caps.sm_count / config->cluster);
  forward.step = make_step(*config, needs_sm90(*config), clusters * config->cluster);
  forward.is_tuned = is_tuned;
  if (config->planes > 1) add_split(p, forward);
  return forward;
}

MmaForward plan_mma(const Problem& p, const DeviceCaps& caps, const TunedTable& tuned) {
  MmaChoice choice = choose_mma(p, caps);
  MmaForward forward;
  forward.is_tuned = tune(choice.config, tuned, caps, needs_mma);
  const Config& config = choice.config;
  forward.splits = choice.splits;
  forward.row_tiles = ceil_div(rows_of(p, config.packed), config.block_m);
  forward.column_slices = ceil_div(p.head_dim_v, config.columns);
  const std::int64_t heads = p.batch * (config.packed ? p.num_heads_kv : p.num_heads);
  forward.step = make_step(config, needs_mma(config),
                           forward.row_tiles * forward.column_slices * forward.splits * heads);
  if (choice.engine) {
    forward.engine =
        make_step(*choice.engine, needs_mma(*choice.engine), forward.step.launch.grid[0]);
  }
  if (!choice.combine) return forward;
  const std::int64_t rows = p.batch * p.num_heads * p.seqlen_q;
  forward.combine = make_step(*choice.combine, needs_mma(*choice.combine),
                              ceil_div(rows, choice.combine->block_m));
  forward.combine->launch.overlap_previous = caps.sm >= 90;  // it waits for the pieces itself
  const auto pieces = static_cast<std::size_t>(rows * forward.splits);
  forward.partial_o_bytes = static_cast<std::size_t>(round_up(
      static_cast<std::int64_t>(pieces * sizeof(float)) * p.head_dim_v, workspace_alignment));
  forward.workspace_bytes = forward.partial_o_bytes + pieces * sizeof(PieceSums);
  return forward;
}

void check_supported(const Problem& p, const DeviceCaps& caps, const std::string& device) {
  if (caps.sm < oldest_sm) {
    throw Error(Code::unsupported, "unsupported: device " + device +
                                       ": compute capability must be at least 8.0, is " +
                                       text(caps.sm / 10) + "." + text(caps.sm % 10));
  }
  const Dtype dtypes[] = {p.q, p.k, p.v, p.o, p.dout, p.dq, p.dk, p.dv};
  if (std::ranges::find(dtypes, Dtype::f64) != std::end(dtypes)) {
    throw Error(Code::unsupported, "unsupported: dtype f64: device " + device +
                                       " computes f32, f16 and bf16; device reference does f64");
  }
}

void explain_sm90(const Sm90Forward& fast, const Problem& p, PassPlan& pass) {
  const Config& c = fast.step.config;
  if (fast.split) {
    pass.why.push_back("split: f32 as sums of " + text(c.planes) +
                       " terms of bf16 in the workspace, products of terms in matrix instructions");
  }
  pass.why.push_back(std::string(c.kernel) +
                     ": tiles come by the tensor copy engine, products by warpgroups; " +
                     tile_sentence(c) + ", " + text(c.warpgroups) + " warpgroups compute");
  if (c.masked) {
    pass.why.push_back(text(fast.units) + " tiles, a block each, the longest first; heads go " +
                       text(fast.heads_at_once) +
                       " at a time, so that their keys and values stay in the L2 cache");
  } else {
    pass.why.push_back(text(fast.units) + " tiles on " + text(fast.step.launch.grid[0]) +
                       " blocks that stay, each loading a tile while it ends another");
  }
  if (c.cluster > 1) {
    pass.why.push_back("cluster " + text(c.cluster) +
                       ": neighbouring blocks share every load of "
                       "keys and values");
  }
  if (c.packed) {
    pass.why.push_back("packed: the " + text(p.num_heads / p.num_heads_kv) +
                       " query heads of a kv head share tiles: they read the same keys");
  }
}

void explain_mma(const MmaForward& any, const Problem& p, PassPlan& pass) {
  const Config& c = any.step.config;
  if (any.engine) {
    const Config& engine = any.engine->config;
    pass.why.push_back(std::string(engine.kernel) +
                       ": tiles of keys come by the tensor copy engine, " + text(engine.stages) +
                       " ahead, to " + text(engine.warps) +
                       " warps; where data or a stride of k or v is no multiple of 16 bytes, or "
                       "columns are not contiguous, the next, decided at the call");
  }
  pass.why.push_back(std::string(c.kernel) + ": matrix instructions of sm_80, any strides; " +
                     tile_sentence(c) + ", " + text(c.warps) + " warps");
  if (c.packed) {
    pass.why.push_back("packed: the " + text(p.num_heads / p.num_heads_kv) +
                       " query heads of a kv head share tiles: they read the same keys");
  }
  if (any.splits > 1) {
    pass.why.push_back("split_k " + text(any.splits) +
                       ": tiles of query rows alone would leave multiprocessors idle; partial "
                       "results are merged in order" +
                       (any.engine ? ", by the block that ends last" : ""));
  }
}

void explain(const ForwardDetail& detail, const Problem& p, const std::string& why_not,
             PassPlan& pass) {
  if (detail.fast) {
    explain_sm90(*detail.fast, p, pass);
    pass.why.push_back(
        "where data or a stride of q, k or v is no multiple of 16 bytes, or columns are not "
        "contiguous: " +
        std::string(detail.any->step.config.kernel) + ", decided at the call");
  } else {
    explain_mma(*detail.any, p, pass);
    if (!why_not.empty()) pass.why.push_back("not forward_sm90: " + why_not);
  }
  if (detail.score.band_left > 1 - p.seqlen_q || detail.score.band_right < p.seqlen_k - 1) {
    pass.why.push_back(
        "masked: tiles outside the mask are skipped, those on its edge are tested per pair");
  }
}

PassPlan plan_forward(const Problem& p, const DeviceCaps& caps, const TunedTable& tuned) {
  PassPlan pass;
  auto detail = std::make_shared<ForwardDetail>();
  detail->score = score_of(p);
  pass.detail = detail;
  if (p.batch == 0 || p.seqlen_q == 0) {
    pass.why.emplace_back("nothing to do: o has no element");
    return pass;
  }
  std::string why_not;
  detail->any = plan_mma(p, caps, tuned);
  detail->fast = plan_sm90(p, caps, tuned, why_not);
  const Step& any = detail->any->engine ? *detail->any->engine : detail->any->step;
  const Step& first = detail->fast ? detail->fast->step : any;
  pass.config = summary_of(first, detail->fast ? 1 : detail->any->splits);
  pass.units = detail->fast ? detail->fast->units : first.launch.grid[0];
  pass.workspace_bytes = detail->any->workspace_bytes;
  if (detail->fast && detail->fast->split) {
    pass.workspace_bytes += detail->fast->workspace_bytes;
    pass.kernels.push_back(detail->fast->split->kernel);
  }
  pass.kernels.push_back(first.kernel);
  if (!detail->fast && detail->any->combine) pass.kernels.push_back(detail->any->combine->kernel);
  explain(*detail, p, why_not, pass);
  if (detail->fast ? detail->fast->is_tuned : detail->any->is_tuned) {
    pass.why.push_back("the tile is of this machine's tuning table " + tuned.file());
  }
  if (!tuned.complaint().empty()) {
    pass.why.push_back("tuning table " + tuned.file() + " is not used: " + tuned.complaint());
  }
  return pass;
}

}  // namespace

Plan plan_cuda(const Problem& problem, const DeviceCaps& caps, const std::string& device,
               const TunedTable& tuned) {
  check_supported(problem, caps, device);
  Plan plan;
  plan.problem = problem;
  plan.device = device;
  plan.forward = plan_forward(problem, caps, tuned);
  plan.backward = plan_backward(problem, caps);
  return plan;
}

}  // namespace ingot::cuda
