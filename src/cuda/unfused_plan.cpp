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
  config.arch = form.pairs.config.arch;
  config.planes = form.planes;
  const std::int64_t elements = plane_elements(rows, std::max(p.head_dim, p.head_dim_v));
  return make_step(config, {split_threads, 0}, ceil_div(elements / 8, split_threads));
}

std::string sentence(const Problem& p, const UnfusedBackward& form) {
  const Config& c = form.pairs.config;
  const std::string kernel(c.kernel);
  std::string group = text(form.chunks.heads_kv_at_once) + " kv heads";
  if (form.chunks.keys_at_once < p.seqlen_k) {
    group += " and " + text(form.chunks.keys_at_once) + " keys";
  }
  std::string why = "unfused: ";
  if (form.planes > 1) why += "f32 as sums of " + text(form.planes) + " terms of bf16; ";
  if (form.stores_p()) {
    why += "P and dS of " + group + " at a time go to the workspace (" + kernel + ", tiles of " +
           text(c.block_m) + " queries by " + text(c.block_n) +
           " keys), then dv, dk and dq are products with them";
  } else {
    why += kernel + " keeps tiles of " + text(c.block_n) +
           " keys in place, makes dk and dv and stores dS of " + group +
           " at a time in the workspace; dq is a product with it";
  }
  if (form.chunks.sums_bytes > 0) why += ", dq summed over the chunks of keys in f32";
  return why + "; every sum has a fixed order, so the result has the same bits every time";
}

ChunkNeeds needs_of(const Problem& p, const DeviceCaps& caps, const UnfusedBackward& form) {
  ChunkNeeds needs;
  needs.per_head = terms_bytes(p, form.planes);
  needs.matrices = form.stores_p() ? 2 * form.planes : form.planes;
  if (!form.stores_p() && !form.pairs.config.masked) {  // a block a tile of keys, all alike
    needs.tiles_of_head = ceil_div(p.seqlen_k, form.pairs.config.block_n);
    needs.multiprocessors = caps.sm_count;
  }
  return needs;
}

/// The kernels but for the split; nothing where the form is not worth its launches.
std::optional<UnfusedBackward> choose(const Problem& p, const DeviceCaps& caps,
                                      std::string& why_not) {
  UnfusedBackward form;
  if (const std::optional<Config> terms = choose_terms(p, why_not)) {
    form.planes = terms->planes;
    form.pairs = make_step(*terms, needs_terms(*terms), 1);
  } else if (const std::optional<Config> scores = choose_scores(p, why_not)) {
    form.planes = scores->planes;
    form.pairs = make_step(*scores, needs_scores(*scores), caps.sm_count);
    form.dv = plan_product(p, p.head_dim_v, p.dv, true, form.planes);
    form.dk = plan_product(p, p.head_dim, p.dk, true, form.planes);
  } else {
    return std::nullopt;
  }
  form.dq = plan_product(p, p.head_dim, p.dq, false, form.planes);
  return form;
}

}  // namespace

std::optional<Form> plan_unfused(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail,
                                 std::string& why_not) {
  std::optional<UnfusedBackward> form = choose(p, caps, why_not);
  if (!form) return std::nullopt;
  const std::optional<Chunks> chunks = cut_chunks(p, needs_of(p, caps, *form), form->dq);
  if (!chunks) {
    why_not = std::string(form->stores_p() ? "P and dS" : "dS") +
              " of 128 keys need more than the workspace may hold, " + text(p.workspace_limit) +
              " bytes";
    return std::nullopt;
  }
  form->chunks = *chunks;
  if (form->planes > 1) form->split = split_step(p, *form);
  Form shown;
  shown.workspace_bytes = static_cast<std::size_t>(
      static_cast<std::int64_t>(detail.statistics->bytes) + 4 * workspace_alignment +
      chunks->matrix_bytes + chunks->heads_kv_at_once * terms_bytes(p, form->planes) +
      chunks->sums_bytes);
  shown.why = sentence(p, *form);
  detail.unfused = std::move(form);
  const UnfusedBackward& kept = *detail.unfused;
  shown.steps = {&detail.statistics->step};
  if (kept.split) shown.steps.push_back(&*kept.split);
  shown.steps.push_back(&kept.pairs);
  if (kept.dv) shown.steps.push_back(&kept.dv->step);
  if (kept.dk) shown.steps.push_back(&kept.dk->step);
  shown.steps.push_back(&kept.dq.step);
  shown.main = &kept.pairs;
  return shown;
}

}  // namespace ingot::cuda
