// The host's part of the stored backward pass: backward_stored_sm90, then the product for dq.
#include <algorithm>
#include <optional>

#include "cuda/launch_stored.hpp"
#include "cuda/tuning.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t query_rows = 64;

struct Maps {
  TensorMap q, k, v, dout;
  TensorMap k_rows;  ///< for the product
};

std::optional<Maps> encode_maps(const Driver& driver, const BackwardCall& call) {
  const Problem& p = call.problem;
  const BackwardArgs& args = call.args;
  const std::int64_t keys = call.detail.stored->keys.config.block_n;
  const auto map = [&](const ConstTensor& t, bool of_keys, std::int64_t dim, std::int64_t rows) {
    return encode(driver, tensor_spec(t, p.q, p.batch, of_keys ? p.num_heads_kv : p.num_heads,
                                      of_keys ? p.seqlen_k : p.seqlen_q, dim, rows));
  };
  const auto q = map(args.q, false, p.head_dim, query_rows);
  const auto k = map(args.k, true, p.head_dim, keys);
  const auto v = map(args.v, true, p.head_dim_v, keys);
  const auto dout = map(args.dout, false, p.head_dim_v, query_rows);
  const auto k_rows = map(args.k, true, p.head_dim, query_rows);
  if (!q || !k || !v || !dout || !k_rows) return std::nullopt;
  return Maps{*q, *k, *v, *dout, *k_rows};
}

void launch_keys(const Device& device, const BackwardCall& call, const std::byte* statistics,
                 const StoredOperand& ds, const Maps& from, const Loader& load) {
  const Step& step = call.detail.stored->keys;
  StoredParams params = stored_params(call, statistics, ds, step.config.block_n);
  params.faults = device.faults().words();
  Launch launch = step.launch;
  launch.grid[0] = params.tiles * (ds.matrices / params.group);
  Maps maps = from;
  TensorMap ds_map = encode_stored(device.driver(), ds, call.problem.q);
  void* const arguments[] = {&params, &maps.k, &maps.v, &maps.q, &maps.dout, &ds_map};
  device.launch(load(step), launch, call.stream, arguments);
}

void launch_dq(const Device& device, const BackwardCall& call, const StoredOperand& ds,
               const Maps& maps, float* sums, const Loader& load) {
  if (call.args.dq.data == nullptr) return;
  const StoredBackward& form = *call.detail.stored;
  const Problem& p = call.problem;
  ProductCall product{form.dq, p, call.detail.score, ds, maps.k_rows, call.args.dq, p.scale};
  if (form.chunks.sums_bytes > 0) product.sums = sums;
  product.is_first = ds.place.key_first == 0;
  product.is_last = ds.place.key_first + ds.place.keys == p.seqlen_k;
  launch_product(device, product, call.stream, load);
}

}  // namespace

StoredParams stored_params(const BackwardCall& call, const std::byte* statistics,
                           const StoredOperand& ds, std::int64_t block_n) {
  const Problem& p = call.problem;
  const BackwardArgs& args = call.args;
  StoredParams params{};
  params.score = call.detail.score;
  params.lse_log2 = reinterpret_cast<const float*>(statistics);
  params.delta = params.lse_log2 + call.detail.statistics->rows;
  params.dk = args.dk.data;
  params.dv = args.dv.data;
  std::copy_n(args.dk.stride.begin(), 4, params.dk_stride);
  std::copy_n(args.dv.stride.begin(), 4, params.dv_stride);
  params.dk_vector = store_width(args.dk, p.dk);
  params.dv_vector = store_width(args.dv, p.dv);
  params.num_heads_kv = static_cast<int>(p.num_heads_kv);
  params.group = static_cast<int>(p.num_heads / p.num_heads_kv);
  params.stores_ds = args.dq.data != nullptr ? 1 : 0;
  params.stored = ds.place;
  params.tiles = static_cast<int>(ceil_div(ds.place.keys, block_n));
  return params;
}

bool launch_stored(const Device& device, const BackwardCall& call, std::byte* workspace,
                   const Loader& load) {
  const std::optional<Maps> maps = encode_maps(device.driver(), call);
  if (!maps) return false;
  launch_statistics(device, call, workspace, load);
  const Problem& p = call.problem;
  const Chunks& chunks = call.detail.stored->chunks;
  const std::int64_t group = p.num_heads / p.num_heads_kv, heads = p.batch * p.num_heads_kv;
  std::byte* const behind =
      workspace +
      round_up(static_cast<std::int64_t>(call.detail.statistics->bytes), workspace_alignment);
  auto* const sums = reinterpret_cast<float*>(behind + chunks.matrix_bytes);
  StoredOperand ds;
  ds.data = behind;
  for (std::int64_t head = 0; head < heads; head += chunks.heads_kv_at_once) {
    ds.matrices = std::min(chunks.heads_kv_at_once, heads - head) * group;
    for (std::int64_t key = 0; key < p.seqlen_k; key += chunks.keys_at_once) {
      const std::int64_t keys = std::min(chunks.keys_at_once, p.seqlen_k - key);
      ds.place = {static_cast<int>(head * group), static_cast<int>(key), static_cast<int>(keys),
                  static_cast<int>(call.detail.statistics->rows_padded)};
      ds.keys_padded = round_up(keys, 128);
      launch_keys(device, call, workspace, ds, *maps, load);
      launch_dq(device, call, ds, *maps, sums, load);
    }
  }
  return true;
}

}  // namespace ingot::cuda
