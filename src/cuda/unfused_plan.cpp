// The unfused backward pass of a plan: kernels, groups of work and the workspace.
#include <algorithm>
#include <utility>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t split_threads = 256;  // 8 columns each

/// Terms of the tensors of one head of k and of `heads` heads of q that read it.
std::int64_t terms_bytes(const Problem& p, std::int64_t planes, std::int64_t heads) {
  if (planes == 1) return 0;
  const std::int64_t rows = heads * p.seqlen_q + p.seqlen_k;
  return 2 * planes * (plane_elements(rows, p.head_dim) + plane_elements(rows, p.head_dim_v)) +
         4 * workspace_alignment;
}

std::int64_t heads_of_group(const Problem& p, const UnfusedBackward& form) {
  return form.heads_of_group > 0 ? form.heads_of_group : p.num_heads / p.num_heads_kv;
}

Step split_step(const Problem& p, const UnfusedBackward& form) {
  const std::int64_t heads = form.chunks.heads_kv_at_once * heads_of_group(p, form);
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
  if (form.heads_of_group > 0) {
    group = text(form.heads_of_group) + " query heads of a kv head";
  }
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
  if (form.heads_of_group > 0) why += ", dk and dv summed over the query heads in f32";
  if (form.chunks.sums_bytes > 0) why += ", dq summed over the chunks of keys in f32";
  return why + "; every sum has a fixed order, so the result has the same bits every time";
}

ChunkNeeds needs_of(const Problem& p, const DeviceCaps& caps, const UnfusedBackward& form) {
  ChunkNeeds needs;
  needs.per_head = terms_bytes(p, form.planes, p.num_heads / p.num_heads_kv);
  needs.matrices = form.stores_p() ? 2 * form.planes : form.planes;
  if (!form.stores_p() && !form.pairs.config.masked) {  // a block a tile of keys, all alike
    needs.tiles_of_head = ceil_div(p.seqlen_k, form.pairs.config.block_n);
    needs.multiprocessors = caps.sm_count;
  }
  return needs;
}

/// Some query heads of a group at a time.
bool cut_group(const Problem& p, const DeviceCaps& caps, UnfusedBackward& form) {
  const std::int64_t keys = round_up(p.seqlen_k, 128);
  const auto sums_bytes = [&](const Product& product) {
    return keys * product.slices * product.step.config.columns * 4;
  };
  form.dk_sums_bytes = sums_bytes(*form.dk);
  form.dv_sums_bytes = sums_bytes(*form.dv);
  Problem heads = p;  // as if each had keys of its own
  heads.batch = 1;
  heads.num_heads = heads.num_heads_kv = p.num_heads / p.num_heads_kv;
  heads.workspace_limit -= form.dk_sums_bytes + form.dv_sums_bytes;
  const std::optional<Chunks> chunks = cut_chunks(heads, needs_of(heads, caps, form), form.dq);
  if (!chunks) return false;
  form.chunks = *chunks;
  form.heads_of_group = std::exchange(form.chunks.heads_kv_at_once, 1);
  return true;
}

/// False where not even 128 keys of a query head fit.
bool cut(const Problem& p, const DeviceCaps& caps, UnfusedBackward& form) {
  const std::optional<Chunks> chunks = cut_chunks(p, needs_of(p, caps, form), form.dq);
  const bool in_groups = form.stores_p() && p.num_heads > p.num_heads_kv;
  if (in_groups && (!chunks || chunks->keys_at_once < p.seqlen_k) && cut_group(p, caps, form)) {
    return true;
  }
  if (!chunks) return false;
  form.dk_sums_bytes = form.dv_sums_bytes = 0;
  form.chunks = *chunks;
  return true;
}

std::optional<UnfusedBackward> choose_in_place(const Problem& p, const DeviceCaps& caps,
                                               std::string& why_not) {
  const std::optional<Config> terms = choose_terms(p, why_not);
  if (!terms) return std::nullopt;
  // A block a tile of keys: where those are few, tiles of pairs fill the multiprocessors better.
  const std::int64_t tiles = ceil_div(p.seqlen_k, terms->block_n) * p.batch * p.num_heads_kv;
  if (3 * tiles < 2 * caps.sm_count) return std::nullopt;
  UnfusedBackward form;
  form.planes = terms->planes;
  form.pairs = make_step(*terms, needs_terms(*terms), 1);
  form.dq = plan_product(p, p.head_dim, p.dq, false, form.planes);
  if (!cut(p, caps, form)) return std::nullopt;
  return form;
}

/// The kernels but for the split, and the chunks.
std::optional<UnfusedBackward> choose(const Problem& p, const DeviceCaps& caps,
                                      std::string& why_not) {
  if (std::optional<UnfusedBackward> form = choose_in_place(p, caps, why_not)) return form;
  const std::optional<Config> scores = choose_scores(p, why_not);
  if (!scores) return std::nullopt;
  UnfusedBackward form;
  form.planes = scores->planes;
  form.pairs = make_step(*scores, needs_scores(*scores), caps.sm_count);
  form.dv = plan_product(p, p.head_dim_v, p.dv, true, form.planes);
  form.dk = plan_product(p, p.head_dim, p.dk, true, form.planes);
  form.dq = plan_product(p, p.head_dim, p.dq, false, form.planes);
  if (cut(p, caps, form)) return form;
  why_not = "P and dS of 128 keys need more than the workspace may hold, " +
            text(p.workspace_limit) + " bytes";
  return std::nullopt;
}

}  // namespace

std::optional<Form> plan_unfused(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail,
                                 std::string& why_not) {
  std::optional<UnfusedBackward> form = choose(p, caps, why_not);
  if (!form) return std::nullopt;
  if (form->planes > 1) form->split = split_step(p, *form);
  const Chunks& chunks = form->chunks;
  Form shown;
  shown.workspace_bytes = static_cast<std::size_t>(
      static_cast<std::int64_t>(detail.statistics->bytes) + 4 * workspace_alignment +
      chunks.matrix_bytes + chunks.sums_bytes + form->dk_sums_bytes + form->dv_sums_bytes +
      chunks.heads_kv_at_once * terms_bytes(p, form->planes, heads_of_group(p, *form)));
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
