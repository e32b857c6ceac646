// The relay of a backward pass: chunks, how many of them are under way, and the workspace.
#include <algorithm>

#include "cuda/plan_parts.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t wanted_slots = 4;   // fewer make blocks wait for each other
constexpr std::int64_t most_slots = 8;     // more only take memory
constexpr std::int64_t wanted_tiles = 64;  // of keys in a chunk
constexpr std::int64_t tile_keys = 128;

/// dS of `keys` keys of one head of k and the query heads that read it.
std::int64_t matrix_bytes(const Problem& p, std::int64_t keys) {
  return 2 * (p.num_heads / p.num_heads_kv) * round_up(p.seqlen_q, 128) * round_up(keys, tile_keys);
}

/// Some heads a chunk, or pieces of one head. False where the limit of the workspace has no room.
bool cut(const Problem& p, RelayBackward& form) {
  const std::int64_t heads = p.batch * p.num_heads_kv, head = matrix_bytes(p, p.seqlen_k);
  const std::int64_t room = p.workspace_limit / wanted_slots;
  form.keys_at_once = p.seqlen_k;
  form.heads_kv_at_once = 1;
  std::int64_t left = p.workspace_limit;
  if (head <= room) {
    const std::int64_t wanted = ceil_div(wanted_tiles, ceil_div(p.seqlen_k, tile_keys));
    form.heads_kv_at_once = std::min({wanted, room / head, heads});
  } else {
    form.sums_bytes =
        p.num_heads / p.num_heads_kv * round_up(p.head_dim, 16) * round_up(p.seqlen_q, 128) * 4;
    left -= form.sums_bytes;
    const std::int64_t most =
        std::max<std::int64_t>(left / wanted_slots / matrix_bytes(p, tile_keys), 1) * tile_keys;
    form.keys_at_once = round_up(ceil_div(p.seqlen_k, ceil_div(p.seqlen_k, most)), tile_keys);
  }
  form.pieces = ceil_div(p.seqlen_k, form.keys_at_once);
  form.chunks = ceil_div(heads, form.heads_kv_at_once) * form.pieces;
  form.slot_bytes = form.heads_kv_at_once * matrix_bytes(p, form.keys_at_once);
  form.slots = std::min({left / form.slot_bytes, most_slots, form.chunks});
  form.lag = std::clamp<std::int64_t>(form.slots - 1, 1, 3);
  form.counters = 1 + 2 * form.chunks;
  return form.slots > 0;
}

std::string sentence(const RelayBackward& form) {
  const Config& c = form.step.config;
  std::string why = std::string(c.kernel) + ": one grid, whose blocks make dk, dv and dS of " +
                    text(c.block_n) + " keys or dq of " + text(c.block_m) + " queries; dS of " +
                    text(form.slots) + " chunks of " + text(form.heads_kv_at_once) + " kv heads";
  if (form.pieces > 1) why += " and " + text(form.keys_at_once) + " keys";
  why += " lies in the workspace";
  if (form.pieces > 1) why += ", dq is summed over the pieces in f32";
  return why + "; every sum has a fixed order, so the result has the same bits every time";
}

}  // namespace

std::optional<Form> plan_relay(const Problem& p, const DeviceCaps& caps, BackwardDetail& detail,
                               std::string& why_not) {
  const std::optional<Config> keys = choose_stored(p, why_not);
  if (!keys) return std::nullopt;
  if (keys->wide) {
    why_not = "a head is wider than 128";
    return std::nullopt;
  }
  RelayBackward form;
  form.dq = plan_product(p, p.head_dim, p.dq, false, 1);
  if (!cut(p, form)) {
    why_not = "dS of 128 keys needs more than the workspace may hold, " + text(p.workspace_limit) +
              " bytes";
    return std::nullopt;
  }
  const Config config = choose_relay(*keys, form.dq.step.config);
  const std::int64_t heads = form.heads_kv_at_once * (p.num_heads / p.num_heads_kv);
  const std::int64_t units =
      form.chunks * (form.heads_kv_at_once * ceil_div(form.keys_at_once, config.block_n) +
                     heads * ceil_div(p.seqlen_q, config.block_m));
  form.step = make_step(config, needs_relay(config), std::min<std::int64_t>(units, caps.sm_count));
  Form shown;
  shown.workspace_bytes = static_cast<std::size_t>(
      static_cast<std::int64_t>(detail.statistics->bytes) + 3 * workspace_alignment +
      form.counters * static_cast<std::int64_t>(sizeof(int)) + form.sums_bytes +
      form.slots * form.slot_bytes);
  shown.why = sentence(form);
  detail.relay = std::move(form);
  shown.steps = {&detail.statistics->step, &detail.relay->step};
  shown.main = &detail.relay->step;
  return shown;
}

}  // namespace ingot::cuda
