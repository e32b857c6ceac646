// The stored backward pass of a plan: kernels, groups of work and the workspace.
#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

std::string sentence(const Problem& p, const StoredBackward& form) {
  const Config& c = form.keys.config;
  std::string why = "stored: " + std::string(c.kernel) + " keeps tiles of " + text(c.block_n) +
                    " keys in place, makes dk and dv and stores dS of " +
                    text(form.chunks.heads_kv_at_once) + " kv heads";
  if (form.chunks.keys_at_once < p.seqlen_k) {
    why += " and " + text(form.chunks.keys_at_once) + " keys";
  }
  why += " at a time in the workspace; dq is a product with it";
  if (form.chunks.sums_bytes > 0) why += ", summed over the chunks of keys in f32";
  return why + "; every sum has a fixed order, so the result has the same bits every time";
}

}  // namespace

std::optional<Form> plan_stored(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail,
                                std::string& why_not) {
  const std::optional<Config> config = choose_stored(p, why_not);
  if (!config) return std::nullopt;
  const std::int64_t tiles_of_head = ceil_div(p.seqlen_k, config->block_n);
  if (3 * tiles_of_head * p.batch * p.num_heads_kv < 2 * caps.sm_count) {
    why_not = "few tiles of keys for the multiprocessors";
    return std::nullopt;
  }
  StoredBackward form;
  form.dq = plan_product(p, p.head_dim, p.dq, false, 1);
  const auto statistics = static_cast<std::int64_t>(detail.statistics->bytes);
  ChunkNeeds needs;
  if (!config->masked) {  // else tiles differ, and the long ones come first
    needs.tiles_of_head = tiles_of_head;
    needs.multiprocessors = caps.sm_count;
  }
  const std::optional<Chunks> chunks = cut_chunks(p, needs, form.dq);
  if (!chunks) {
    why_not = "dS of 128 keys needs more than the workspace may hold, " + text(p.workspace_limit) +
              " bytes";
    return std::nullopt;
  }
  form.chunks = *chunks;
  Config product = form.dq.step.config;
  fill_rounds(product, p.seqlen_q, form.chunks.heads_kv_at_once * (p.num_heads / p.num_heads_kv),
              caps.sm_count);
  form.dq.step = make_step(product, needs_product(product), 1);
  const std::int64_t tiles = ceil_div(form.chunks.keys_at_once, config->block_n);
  form.keys = make_step(*config, needs_stored(*config), tiles * form.chunks.heads_kv_at_once);
  Form shown;
  shown.workspace_bytes = static_cast<std::size_t>(
      statistics + workspace_alignment + form.chunks.matrix_bytes + form.chunks.sums_bytes);
  shown.why = sentence(p, form);
  detail.stored = std::move(form);
  shown.steps = {&detail.statistics->step, &detail.stored->keys, &detail.stored->dq.step};
  shown.main = &detail.stored->keys;
  return shown;
}

}  // namespace ingot::cuda
