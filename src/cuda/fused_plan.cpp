// The fused backward pass of a plan: its kernel, groups of heads and the workspace.
#include <algorithm>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t query_tile = 64, column_unit = 16;

/// The f32 sums of dq of the query heads that read one head of k.
std::int64_t sums_bytes(const Problem& p, std::int64_t rows_padded) {
  return p.num_heads / p.num_heads_kv * rows_padded * round_up(p.head_dim, column_unit) * 4;
}

std::string sentence(const Problem& p, const FusedBackward& form) {
  const Config& c = form.step.config;
  std::string why = "fused: " + std::string(c.kernel) + " keeps " + text(c.block_n) +
                    " keys in place and makes dk, dv and their part of dq in one pass over the "
                    "queries; parts are added to f32 sums in the workspace";
  if (form.heads_kv_at_once < p.batch * p.num_heads_kv) {
    why += ", " + text(form.heads_kv_at_once) + " kv heads at a time";
  }
  return why + ", in turn, so the result has the same bits every time";
}

}  // namespace

std::optional<Form> plan_fused(const Problem& p, BackwardDetail& detail, std::string& why_not) {
  const std::optional<FusedChoice> choice = choose_fused(p, why_not);
  if (!choice) return std::nullopt;
  const BackwardStatistics& statistics = *detail.statistics;
  const Config& config = choice->config;
  FusedBackward form;
  form.key_blocks = ceil_div(p.seqlen_k, config.block_n);
  form.turns_bytes = round_up(statistics.rows / query_tile * 4, workspace_alignment);
  const std::int64_t fixed =
      round_up(static_cast<std::int64_t>(statistics.bytes), workspace_alignment) + form.turns_bytes;
  const std::int64_t per_head = sums_bytes(p, statistics.rows_padded);
  const std::int64_t fitting = (p.workspace_limit - fixed) / per_head;
  if (p.workspace_limit < fixed + per_head) {
    why_not = "sums of dq of a head need more than the workspace may hold, " +
              text(p.workspace_limit) + " bytes";
    return std::nullopt;
  }
  form.heads_kv_at_once = std::min(fitting, p.batch * p.num_heads_kv);
  form.heads_in_turn = std::min(choice->heads_in_turn, form.heads_kv_at_once);
  form.sums_bytes = form.heads_kv_at_once * per_head;
  form.step = make_step(config, needs_fused(config), form.key_blocks * form.heads_kv_at_once);
  Form shown;
  shown.workspace_bytes = static_cast<std::size_t>(fixed + form.sums_bytes);
  shown.why = sentence(p, form);
  detail.fused = std::move(form);
  shown.steps = {&detail.statistics->step, &detail.fused->step};
  shown.main = &detail.fused->step;
  return shown;
}

}  // namespace ingot::cuda
