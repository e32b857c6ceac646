// How much of the score matrix the backward forms for Hopper keep in the workspace at a time.
#include <algorithm>
#include <limits>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t chunk_unit = 128;  // keys, and queries that rows are padded to

/// One matrix of `keys` keys, of the query heads that read one head of k.
std::int64_t matrix_bytes(const Problem& p, std::int64_t keys) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  return 2 * group * round_up(p.seqlen_q, chunk_unit) * round_up(keys, chunk_unit);
}

/// Heads of a group, at most `most`, for the fewest rounds of multiprocessors in all groups.
std::int64_t heads_for_rounds(std::int64_t heads, std::int64_t most, const ChunkNeeds& needs) {
  if (needs.tiles_of_head == 0) return most;
  std::int64_t best = most, fewest = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t n = most; n > 0; --n) {
    const auto rounds = [&](std::int64_t h) {
      return ceil_div(h * needs.tiles_of_head, needs.multiprocessors);
    };
    const std::int64_t all = heads / n * rounds(n) + rounds(heads % n);
    if (all < fewest) fewest = all, best = n;
  }
  return best;
}

}  // namespace

std::optional<Chunks> cut_chunks(const Problem& p, const ChunkNeeds& needs, const Product& dq) {
  Chunks chunks;
  const std::int64_t budget = p.workspace_limit, heads = p.batch * p.num_heads_kv;
  const std::int64_t whole = needs.matrices * matrix_bytes(p, p.seqlen_k) + needs.per_head;
  const std::int64_t most = std::clamp<std::int64_t>(budget / whole, 1, heads);
  chunks.heads_kv_at_once = heads_for_rounds(heads, most, needs);
  chunks.keys_at_once = p.seqlen_k;
  if (whole > budget) {
    chunks.sums_bytes = p.num_heads / p.num_heads_kv * dq.slices * dq.step.config.columns *
                        round_up(p.seqlen_q, chunk_unit) * 4;
    const std::int64_t left = budget - needs.per_head - chunks.sums_bytes;
    const std::int64_t fit = left / (needs.matrices * matrix_bytes(p, chunk_unit)) * chunk_unit;
    if (fit <= 0) return std::nullopt;
    chunks.keys_at_once = round_up(ceil_div(p.seqlen_k, ceil_div(p.seqlen_k, fit)), chunk_unit);
  }
  chunks.matrix_bytes =
      chunks.heads_kv_at_once * needs.matrices * matrix_bytes(p, chunks.keys_at_once);
  return chunks;
}

}  // namespace ingot::cuda
