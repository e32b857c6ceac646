// The backward pass of a plan: which form, its kernels and its workspace.
#include <algorithm>
#include <climits>

#include "core/error.hpp"
#include "cuda/kernels/backward_params.h"
#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

std::optional<MmaBackward> backward_kernel(const Config& config, std::int64_t tiles,
                                           std::int64_t slices, std::int64_t heads) {
  if (tiles * slices * heads == 0) return std::nullopt;
  return MmaBackward{make_step(config, needs_mma_backward(config), tiles * slices * heads), tiles,
                     slices};
}

/// Pieces that sums of `dim` columns are cut into; the last may be narrower.
std::int64_t slices_of(std::int64_t dim, std::int64_t columns) {
  return columns == 0 ? 1 : ceil_div(dim, columns);
}

/// Why no form for Hopper can run the problem; empty where one may.
std::string why_not_hopper(const Problem& p, const DeviceCaps& caps) {
  if (caps.sm != 90) return "this device has no warpgroup products";
  if (p.parts.any()) return "they do not compute parts of attention";
  if (p.q != p.k || p.q != p.v || p.q != p.dout) return "q, k, v and dout must have one dtype";
  if (p.seqlen_k == 0 || p.seqlen_q == 0 || p.batch == 0) return "there is no pair";
  const std::int64_t most = INT_MAX / 2;
  if (p.seqlen_q > most || p.seqlen_k > most) return "positions must fit 32 bits";
  return "";
}

BackwardStatistics plan_statistics(const Problem& p, const DeviceCaps& caps) {
  BackwardStatistics statistics;
  const Config config = choose_statistics(p, caps);
  statistics.rows_padded = round_up(p.seqlen_q, 128);
  statistics.rows = p.batch * p.num_heads * statistics.rows_padded;
  const std::int64_t rows_of_warp = p.head_dim_v > 128 ? 1 : p.head_dim_v > 64 ? 2 : 4;
  const std::int64_t blocks = statistics.rows / (config.warps * rows_of_warp);
  const std::int64_t numbers = 2 * statistics.rows + log2_sums_behind(statistics.rows);
  statistics.bytes = static_cast<std::size_t>(numbers) * sizeof(float);
  statistics.step = make_step(config, {32 * config.warps, 0}, blocks);
  return statistics;
}

/// The tiles that one block of threads adds to its own are counted in 32 bits.
void check_bias_tiles(const Problem& p, const Config& config) {
  const Shape& shape = p.parts.bias_shape;
  const std::int64_t rows = shape[2] == 1 ? ceil_div(p.seqlen_q, config.block_m) : 1;
  const std::int64_t cols = shape[3] == 1 ? ceil_div(p.seqlen_k, config.block_n) : 1;
  if (rows > INT_MAX / std::max<std::int64_t>(cols, 1)) {
    throw Error(Code::unsupported, "unsupported: a bias that is one number for " +
                                       text(p.seqlen_q) + " queries and " + text(p.seqlen_k) +
                                       " keys: at most 2^31 tiles may be added up");
  }
}

/// The form that any device and any strides can have.
Form plan_mma_backward(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail) {
  const MmaBackwardChoice choice = choose_mma_backward(p, caps);
  const Config& dq = choice.dq;
  const Config& dkv = choice.dkv;
  const std::int64_t heads = p.batch * p.num_heads;
  const std::int64_t rows = heads * p.seqlen_q;
  detail.delta = backward_kernel(choice.delta, ceil_div(rows, choice.delta.warps), 1, 1);
  detail.dq = backward_kernel(dq, ceil_div(p.seqlen_q, dq.block_m),
                              slices_of(p.head_dim, dq.columns), heads);
  detail.dkv = backward_kernel(
      dkv, ceil_div(p.seqlen_k, dkv.block_m),
      std::max(slices_of(p.head_dim, dkv.columns), slices_of(p.head_dim_v, dkv.columns_v)),
      p.batch * p.num_heads_kv);
  if (choice.dbias) {
    const Shape& shape = p.parts.bias_shape;
    check_bias_tiles(p, *choice.dbias);
    detail.dbias = backward_kernel(*choice.dbias, ceil_div(shape[2], choice.dbias->block_m),
                                   ceil_div(shape[3], choice.dbias->block_n), shape[0] * shape[1]);
  }
  if (choice.dsinks) detail.dsinks = backward_kernel(*choice.dsinks, 1, 1, p.num_heads);
  Form form;
  form.workspace_bytes = static_cast<std::size_t>(rows) * sizeof(RowStatistics);
  for (const auto* kernel :
       {&detail.delta, &detail.dq, &detail.dkv, &detail.dbias, &detail.dsinks}) {
    if (*kernel) form.steps.push_back(&(*kernel)->step);
  }
  if (detail.dkv) form.main = &detail.dkv->step;
  form.why = "delta, then dq over query tiles (" + tile_sentence(dq) +
             "), then dk and dv over key tiles (" + tile_sentence(dkv) +
             "): weights are computed twice and nothing is added across blocks, so the result has "
             "the same bits every time";
  return form;
}

/// The first form for Hopper that takes the problem.
std::optional<Form> plan_hopper(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail,
                                std::string& why_not) {
  why_not = why_not_hopper(p, caps);
  if (!why_not.empty()) return std::nullopt;
  detail.statistics = plan_statistics(p, caps);
  std::optional<Form> form;
  form = plan_fused(p, detail, why_not);
  if (!form) form = plan_stored(p, caps, detail, why_not);
  if (!form) form = plan_unfused(p, caps, detail, why_not);
  if (!form) detail.statistics.reset();
  return form;
}

void show(const Form& form, PassPlan& pass) {
  for (const Step* step : form.steps) pass.kernels.push_back(step->kernel);
  if (form.main != nullptr) {
    pass.config = summary_of(*form.main, 1);
    pass.units = form.main->launch.grid[0];
  }
  pass.why.push_back(form.why);
}

}  // namespace

PassPlan plan_backward(const Problem& p, const DeviceCaps& caps) {
  PassPlan pass;
  auto detail = std::make_shared<BackwardDetail>();
  detail->score = score_of(p);
  std::string why_not;
  const Form any = plan_mma_backward(p, caps, *detail);
  const std::optional<Form> fast = plan_hopper(p, caps, *detail, why_not);
  show(fast ? *fast : any, pass);
  pass.workspace_bytes = std::max(any.workspace_bytes, fast ? fast->workspace_bytes : 0);
  if (fast) {
    pass.why.emplace_back(
        "where data or a stride of q, k, v or dout is no multiple of 16 bytes, or columns are not "
        "contiguous: backward_dq and backward_dkv, decided at the call");
  } else if (!why_not.empty()) {
    pass.why.push_back("no kernels for Hopper: " + why_not);
  }
  pass.detail = detail;
  return pass;
}

}  // namespace ingot::cuda
