// The host's part of the relay: one launch behind the statistics.
#include <algorithm>
#include <optional>

#include "cuda/launch_stored.hpp"
#include "cuda/tuning.hpp"

namespace ingot::cuda {
namespace {

constexpr double early =
    0.3;  // of the units of keys of a chunk, those that units of dq come before

std::byte* behind(std::byte* p, std::int64_t bytes) {
  return p + round_up(bytes, workspace_alignment);
}

RelayParams relay_params(const BackwardCall& call, int* counters, const ProductParams& product) {
  const Problem& p = call.problem;
  const RelayBackward& form = *call.detail.relay;
  RelayParams params{};
  params.ticket = counters;
  params.keys_done = counters + 1;
  params.dq_done = params.keys_done + form.chunks;
  params.chunks = static_cast<int>(form.chunks);
  params.slots = static_cast<int>(form.slots);
  params.lag = static_cast<int>(form.lag);
  params.heads = static_cast<int>(form.heads_kv_at_once);
  params.heads_total = static_cast<int>(p.batch * p.num_heads_kv);
  params.pieces = static_cast<int>(form.pieces);
  params.keys = static_cast<int>(form.keys_at_once);
  params.dq_tiles = call.args.dq.data == nullptr ? 0 : product.units;
  const std::int64_t of_keys =
      form.heads_kv_at_once * ceil_div(form.keys_at_once, form.step.config.block_n);
  const auto before = static_cast<std::int64_t>(early * static_cast<double>(of_keys));
  params.dq_in_turn = static_cast<int>(
      std::max<std::int64_t>(ceil_div(params.dq_tiles, std::max<std::int64_t>(before, 1)), 1));
  return params;
}

struct Maps {
  TensorMap k, v, q, dout, k_rows;
};

std::optional<Maps> encode_maps(const Driver& driver, const BackwardCall& call) {
  const Problem& p = call.problem;
  const std::int64_t keys = call.detail.relay->step.config.block_n, rows = 64;
  const auto of_keys = [&](const ConstTensor& t, std::int64_t dim, std::int64_t box) {
    return encode(driver, tensor_spec(t, p.q, p.batch, p.num_heads_kv, p.seqlen_k, dim, box));
  };
  const auto of_queries = [&](const ConstTensor& t, std::int64_t dim) {
    return encode(driver, tensor_spec(t, p.q, p.batch, p.num_heads, p.seqlen_q, dim, rows));
  };
  const auto k = of_keys(call.args.k, p.head_dim, keys);
  const auto v = of_keys(call.args.v, p.head_dim_v, keys);
  const auto q = of_queries(call.args.q, p.head_dim);
  const auto dout = of_queries(call.args.dout, p.head_dim_v);
  const auto k_rows = of_keys(call.args.k, p.head_dim, rows);
  if (!k || !v || !q || !dout || !k_rows) return std::nullopt;
  return Maps{*k, *v, *q, *dout, *k_rows};
}

}  // namespace

bool launch_relay(const Device& device, const BackwardCall& call, std::byte* workspace,
                  const Loader& load) {
  std::optional<Maps> maps = encode_maps(device.driver(), call);
  if (!maps) return false;
  const Problem& p = call.problem;
  const RelayBackward& form = *call.detail.relay;
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  std::byte* const counters =
      behind(workspace, static_cast<std::int64_t>(call.detail.statistics->bytes));
  std::byte* const sums = behind(counters, form.counters * static_cast<std::int64_t>(sizeof(int)));
  auto* const first = reinterpret_cast<int*>(counters);
  launch_statistics(device, call, workspace, load,
                    {first, static_cast<std::size_t>(form.counters)});

  StoredOperand ds;
  ds.data = behind(sums, form.sums_bytes);
  ds.place = {0, 0, static_cast<int>(std::min(form.keys_at_once, p.seqlen_k)),
              static_cast<int>(call.detail.statistics->rows_padded)};
  ds.keys_padded = round_up(form.keys_at_once, 128);
  ds.matrices = form.heads_kv_at_once * group;
  ProductCall product_call{form.dq, p, call.detail.score, ds, maps->k_rows, call.args.dq, p.scale};
  if (form.pieces > 1) product_call.sums = reinterpret_cast<float*>(sums);
  product_call.is_first = product_call.is_last = false;
  ProductParams product = product_params(product_call);
  product.heads_at_once = product.heads;
  StoredParams stored = stored_params(call, workspace, ds, form.step.config.block_n);
  RelayParams relay = relay_params(call, first, product);
  ds.matrices *= form.slots;
  TensorMap ds_map = encode_stored(device.driver(), ds, p.q);
  void* const arguments[] = {&stored,  &product,    &relay,  &maps->k,     &maps->v,
                             &maps->q, &maps->dout, &ds_map, &maps->k_rows};
  device.launch(load(form.step), form.step.launch, call.stream, arguments);
  return true;
}

}  // namespace ingot::cuda
