// How much of the score matrix the backward forms for Hopper keep in the workspace at a time.
#include <algorithm>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t chunk_unit = 128;  // keys, and queries that rows are padded to

/// One matrix of `keys` keys, of the query heads that read one head of k.
std::int64_t matrix_bytes(const Problem& p, std::int64_t keys) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  return 2 * group * round_up(p.seqlen_q, chunk_unit) * round_up(keys, chunk_unit);
}

}  // namespace

std::optional<Chunks> cut_chunks(const Problem& p, const ChunkNeeds& needs, std::int64_t limit,
                                 const Product& dq) {
  Chunks chunks;
  const std::int64_t budget = limit - needs.fixed;
  const std::int64_t whole = needs.matrices * matrix_bytes(p, p.seqlen_k) + needs.per_head;
  chunks.heads_kv_at_once = std::clamp<std::int64_t>(budget / whole, 1, p.batch * p.num_heads_kv);
  chunks.keys_at_once = p.seqlen_k;
  if (whole > budget) {
    chunks.sums_bytes = p.num_heads / p.num_heads_kv * dq.slices * dq.step.config.columns *
                        round_up(p.seqlen_q, chunk_unit) * 4;
    const std::int64_t left = budget - needs.per_head - chunks.sums_bytes;
    const std::int64_t most = left / (needs.matrices * matrix_bytes(p, chunk_unit)) * chunk_unit;
    if (most <= 0) return std::nullopt;
    chunks.keys_at_once = round_up(ceil_div(p.seqlen_k, ceil_div(p.seqlen_k, most)), chunk_unit);
  }
  chunks.matrix_bytes =
      chunks.heads_kv_at_once * needs.matrices * matrix_bytes(p, chunks.keys_at_once);
  return chunks;
}

}  // namespace ingot::cuda
