// The unfused backward pass of a plan: kernels, groups of work and the workspace.
#include <algorithm>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t split_threads = 256;  // 8 columns each

/// Terms of the tensors of one head of k and the heads of q that read it.
std::int64_t terms_bytes(const Problem& p, std::int64_t planes) {
  if (planes == 1) return 0;
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  const std::int64_t rows = group * p.seqlen_q + p.seqlen_k;
  return 2 * planes * (plane_elements(rows, p.head_dim) + plane_elements(rows, p.head_dim_v)) +
         4 * workspace_alignment;
}

Step split_step(const Problem& p, const UnfusedBackward& form) {
  const std::int64_t heads = form.chunks.heads_kv_at_once * (p.num_heads / p.num_heads_kv);
  const std::int64_t rows = std::max(heads * p.seqlen_q, form.chunks.heads_kv_at_once * p.seqlen_k);
  Config config;
  config.kernel = "split";
  config.arch = form.scores.config.arch;
  config.planes = form.planes;
  const std::int64_t elements = plane_elements(rows, std::max(p.head_dim, p.head_dim_v));
  return make_step(config, {split_threads, 0}, ceil_div(elements / 8, split_threads));
}

std::string sentence(const Problem& p, const UnfusedBackward& form) {
  const Config& c = form.scores.config;
  std::string why = "unfused: ";
  if (form.planes > 1) why += "f32 as sums of " + text(form.planes) + " terms of bf16; ";
  why += "P and dS of " + text(form.chunks.heads_kv_at_once) + " kv heads";
  if (form.chunks.keys_at_once < p.seqlen_k)
    why += " and " + text(form.chunks.keys_at_once) + " keys";
  why += " at a time go to the workspace (" + std::string(c.kernel) + ", tiles of " +
         text(c.block_m) + " queries by " + text(c.block_n) +
         " keys), then dv, dk and dq are products with them";
  if (form.chunks.sums_bytes > 0) why += ", dq summed over the chunks of keys in f32";
  return why + "; every sum has a fixed order, so the result has the same bits every time";
}

}  // namespace

std::optional<Form> plan_unfused(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail,
                                 std::string& why_not) {
  const std::optional<Config> scores = choose_scores(p, why_not);
  if (!scores) return std::nullopt;
  const bool f32 = p.q == Dtype::f32;
  UnfusedBackward form;
  form.planes = scores->planes;
  form.scores = make_step(*scores, needs_scores(*scores), caps.sm_count);
  form.dv = plan_product(p, p.head_dim_v, p.dv, true, form.planes);
  form.dk = plan_product(p, p.head_dim, p.dk, true, form.planes);
  form.dq = plan_product(p, p.head_dim, p.dq, false, form.planes);
  const ChunkNeeds needs{.per_head = terms_bytes(p, form.planes), .matrices = 2 * form.planes};
  const std::optional<Chunks> chunks = cut_chunks(p, needs, form.dq);
  if (!chunks) {
    why_not = "P and dS of 128 keys need more than the workspace may hold, " +
              text(p.workspace_limit) + " bytes";
    return std::nullopt;
  }
  form.chunks = *chunks;
  if (f32) form.split = split_step(p, form);
  Form shown;
  shown.workspace_bytes = static_cast<std::size_t>(
      static_cast<std::int64_t>(detail.statistics->bytes) + 4 * workspace_alignment +
      form.chunks.matrix_bytes + form.chunks.heads_kv_at_once * terms_bytes(p, form.planes) +
      form.chunks.sums_bytes);
  shown.why = sentence(p, form);
  detail.unfused = std::move(form);
  const UnfusedBackward& kept = *detail.unfused;
  shown.steps = {&detail.statistics->step};
  if (kept.split) shown.steps.push_back(&*kept.split);
  for (const Step* step : {&kept.scores, &kept.dv.step, &kept.dk.step, &kept.dq.step}) {
    shown.steps.push_back(step);
  }
  shown.main = &kept.scores;
  return shown;
}

}  // namespace ingot::cuda
