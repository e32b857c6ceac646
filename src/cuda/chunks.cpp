// How much of the score matrix the backward forms for Hopper keep in the workspace at a time.
#include <algorithm>
#include <initializer_list>
#include <limits>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t chunk_unit = 128;  // keys, and queries that rows are padded to

/// No workspace is larger, so that sums of sizes stay numbers whatever the problem's limit.
constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max() / 8;

/// The product of numbers that are not negative; `largest`, which nothing holds, where it is more.
std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(result, factor, &result)) return largest;
  }
  return std::min(result, largest);
}

/// `count` matrices of `keys` keys, of the query heads that read one head of k.
std::int64_t matrix_bytes(const Problem& p, std::int64_t count, std::int64_t keys) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  return product({2 * count, group, round_up(p.seqlen_q, chunk_unit), round_up(keys, chunk_unit)});
}

/// Heads of a group, at most `most`, for the fewest rounds of multiprocessors in all groups. No
/// number of heads needs fewer than one whose tiles fill whole rounds, and such numbers are at most
/// `multiprocessors` apart.
std::int64_t heads_for_rounds(std::int64_t heads, std::int64_t most, const ChunkNeeds& needs) {
  if (needs.tiles_of_head == 0) return most;
  std::int64_t best = most, fewest = std::numeric_limits<std::int64_t>::max();
  const std::int64_t least = std::max<std::int64_t>(most - needs.multiprocessors, 0);
  for (std::int64_t n = most; n > least; --n) {
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
  const std::int64_t budget = std::min(p.workspace_limit, largest - 1);
  const std::int64_t heads = std::max<std::int64_t>(p.batch * p.num_heads_kv, 1);
  const std::int64_t whole =
      std::max<std::int64_t>(matrix_bytes(p, needs.matrices, p.seqlen_k) + needs.per_head, 1);
  const std::int64_t most = std::clamp<std::int64_t>(budget / whole, 1, heads);
  chunks.heads_kv_at_once = heads_for_rounds(heads, most, needs);
  chunks.keys_at_once = p.seqlen_k;
  if (whole > budget) {
    chunks.sums_bytes = product({p.num_heads / p.num_heads_kv, dq.slices, dq.step.config.columns,
                                 round_up(p.seqlen_q, chunk_unit), 4});
    const std::int64_t left = budget - needs.per_head - chunks.sums_bytes;
    const std::int64_t unit = matrix_bytes(p, needs.matrices, chunk_unit);
    const std::int64_t fit = left / std::max<std::int64_t>(unit, 1) * chunk_unit;
    if (fit <= 0) return std::nullopt;
    chunks.keys_at_once = round_up(ceil_div(p.seqlen_k, ceil_div(p.seqlen_k, fit)), chunk_unit);
  }
  chunks.matrix_bytes =
      product({chunks.heads_kv_at_once, matrix_bytes(p, needs.matrices, chunks.keys_at_once)});
  return chunks;
}

}  // namespace ingot::cuda
