// The host's part of the unfused backward pass: split f32, scores_sm90, then products.
#include <algorithm>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "cuda/kernels/scores_params.h"
#include "cuda/launch_stored.hpp"
#include "cuda/tuning.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t alignment = 256;
constexpr std::int64_t supers_bytes = 12 << 20;  // of K and V that query tiles in flight share
constexpr std::int64_t product_rows = 64;

std::byte* aligned(std::byte* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return p + (alignment - address % alignment) % alignment;
}

/// Where everything lies in the workspace, behind the statistics.
struct Places {
  int* has_special = nullptr;
  std::byte *p = nullptr, *ds = nullptr;  ///< where P is not stored, p is ds
  float *sums = nullptr, *dk_sums = nullptr, *dv_sums = nullptr;
  std::byte* terms = nullptr;
};

Places places_of(const BackwardCall& call, std::byte* workspace) {
  const UnfusedBackward& form = *call.detail.unfused;
  Places at;
  std::byte* next = aligned(workspace + call.detail.statistics->bytes);
  at.has_special = reinterpret_cast<int*>(next);
  at.p = next + alignment;
  at.ds = at.p + (form.stores_p() ? form.chunks.matrix_bytes / 2 : 0);
  std::byte* const behind = at.p + form.chunks.matrix_bytes;
  at.sums = reinterpret_cast<float*>(behind);
  at.dk_sums = reinterpret_cast<float*>(behind + form.chunks.sums_bytes);
  at.dv_sums = at.dk_sums + form.dk_sums_bytes / 4;
  at.terms = behind + form.chunks.sums_bytes + form.dk_sums_bytes + form.dv_sums_bytes;
  return at;
}

/// Heads, batch * number of heads + head.
struct Heads {
  std::int64_t first = 0, count = 0;
};

/// What is computed at a time: heads of k with all query heads that read them, or one with some.
struct Group {
  Heads kv, q;
};

std::vector<Group> groups_of(const BackwardCall& call) {
  const Problem& p = call.problem;
  const UnfusedBackward& form = *call.detail.unfused;
  const std::int64_t heads_kv = p.batch * p.num_heads_kv, per_head = p.num_heads / p.num_heads_kv;
  const std::int64_t at_once = form.heads_of_group > 0 ? form.heads_of_group : per_head;
  std::vector<Group> groups;
  for (std::int64_t kv = 0; kv < heads_kv; kv += form.chunks.heads_kv_at_once) {
    const std::int64_t count = std::min(form.chunks.heads_kv_at_once, heads_kv - kv);
    for (std::int64_t head = 0; head < per_head; head += at_once) {
      const std::int64_t some = std::min(at_once, per_head - head);
      groups.push_back({{kv, count}, {kv * per_head + head, count * some}});
    }
  }
  return groups;
}

/// The tensors that products read, in boxes of any number of rows.
struct Operands {
  TensorMapSpec q, k, v, dout;

  static std::optional<TensorMap> map(const Driver& driver, TensorMapSpec spec, std::int64_t rows) {
    spec.box[1] = static_cast<std::uint32_t>(rows);
    return encode(driver, spec);
  }
};

struct Maps {
  TensorMap q, k, v, dout;     ///< for the kernel that makes dS
  TensorMap q64, k64, dout64;  ///< for products
};

std::optional<Maps> encode_maps(const Driver& driver, const Operands& o, const Config& pairs) {
  const std::int64_t queries = pairs.block_m, keys = pairs.block_n;
  const auto q = Operands::map(driver, o.q, queries), k = Operands::map(driver, o.k, keys);
  const auto v = Operands::map(driver, o.v, keys), dout = Operands::map(driver, o.dout, queries);
  const auto q64 = Operands::map(driver, o.q, product_rows);
  const auto k64 = Operands::map(driver, o.k, product_rows);
  const auto dout64 = Operands::map(driver, o.dout, product_rows);
  if (!q || !k || !v || !dout || !q64 || !k64 || !dout64) return std::nullopt;
  return Maps{*q, *k, *v, *dout, *q64, *k64, *dout64};
}

Operands operands_of(const BackwardCall& call) {
  const Problem& p = call.problem;
  const BackwardArgs& args = call.args;
  return {
      tensor_spec(args.q, p.q, p.batch, p.num_heads, p.seqlen_q, p.head_dim, product_rows),
      tensor_spec(args.k, p.k, p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim, product_rows),
      tensor_spec(args.v, p.v, p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v, product_rows),
      tensor_spec(args.dout, p.dout, p.batch, p.num_heads, p.seqlen_q, p.head_dim_v, product_rows)};
}

void launch_split(const Device& device, const BackwardCall& call, SplitParams params,
                  std::int64_t blocks, const Loader& load) {
  const Step& step = *call.detail.unfused->split;
  void* const arguments[] = {&params};
  Launch launch = step.launch;
  launch.grid[0] = blocks;
  device.launch(load(step), launch, call.stream, arguments);
}

/// Some heads of a tensor of f32 as terms at `to`, which becomes the end of them.
TensorMapSpec split_heads(const Device& device, const BackwardCall& call, const ConstTensor& t,
                          std::int64_t heads, const Heads& group, std::int64_t seqlen,
                          std::int64_t dim, int* has_special, std::byte*& to, const Loader& load) {
  const std::int64_t planes = call.detail.unfused->planes, threads = 256;
  SplitParams params{};
  params.from = static_cast<const float*>(t.data);
  params.has_special = has_special;
  params.to = to;
  std::copy_n(t.stride.begin(), 4, params.stride);
  params.rows = group.count * seqlen;
  params.seqlen = seqlen;
  params.plane = plane_elements(params.rows, dim);
  params.num_heads = static_cast<int>(heads);
  params.head_first = static_cast<int>(group.first);
  params.dim = static_cast<int>(dim);
  params.dim_padded = static_cast<int>(plane_elements(1, dim));
  launch_split(device, call, params, ceil_div(params.plane / 8, threads), load);

  // Kernels count heads from the first of the first batch.
  const std::int64_t head = seqlen * params.dim_padded;
  const ConstTensor from_first{reinterpret_cast<const std::byte*>(to) - 2 * group.first * head,
                               {heads * head, head, params.dim_padded, 1}};
  to = aligned(to + params.plane * planes * size_bytes(Dtype::bf16));
  return tensor_spec(from_first, Dtype::bf16, call.problem.batch, heads, seqlen, dim, product_rows,
                     planes, params.plane);
}

Operands split_group(const Device& device, const BackwardCall& call, const Group& group,
                     const Places& at, const Loader& load) {
  const Problem& p = call.problem;
  std::byte* to = at.terms;
  const auto split = [&](const ConstTensor& t, std::int64_t heads, const Heads& of,
                         std::int64_t seqlen, std::int64_t dim) {
    return split_heads(device, call, t, heads, of, seqlen, dim, at.has_special, to, load);
  };
  const BackwardArgs& args = call.args;
  return {split(args.q, p.num_heads, group.q, p.seqlen_q, p.head_dim),
          split(args.k, p.num_heads_kv, group.kv, p.seqlen_k, p.head_dim),
          split(args.v, p.num_heads_kv, group.kv, p.seqlen_k, p.head_dim_v),
          split(args.dout, p.num_heads, group.q, p.seqlen_q, p.head_dim_v)};
}

void launch_scores(const Device& device, const BackwardCall& call, const Maps& from,
                   const StoredOperand& p, const StoredOperand& ds, const std::byte* statistics,
                   const Loader& load) {
  const Problem& problem = call.problem;
  const Step& step = call.detail.unfused->pairs;
  const Config& c = step.config;
  ScoresParams params{};
  params.faults = device.faults().words();
  params.score = call.detail.score;
  params.stored = p.place;
  params.lse_log2 = reinterpret_cast<const float*>(statistics);
  params.delta = params.lse_log2 + call.detail.statistics->rows;
  params.num_heads = static_cast<int>(problem.num_heads);
  params.group = static_cast<int>(problem.num_heads / problem.num_heads_kv);
  params.matrices = static_cast<int>(p.matrices);
  params.query_tiles = static_cast<int>(ceil_div(problem.seqlen_q, c.block_m));
  params.key_tiles = static_cast<int>(ceil_div(p.place.keys, c.block_n));
  const std::int64_t tile_bytes =
      c.block_n * (problem.head_dim + problem.head_dim_v) * 2 * c.planes;
  params.tiles_at_once =
      static_cast<int>(std::clamp<std::int64_t>(supers_bytes / tile_bytes, 1, params.key_tiles));
  const Dtype element = c.planes > 1 ? Dtype::bf16 : problem.q;
  TensorMap p_map = encode_stored(device.driver(), p, element);
  TensorMap ds_map = encode_stored(device.driver(), ds, element);
  Maps maps = from;
  Launch launch = step.launch;
  const std::int64_t tiles = std::int64_t{params.matrices} * params.query_tiles * params.key_tiles;
  launch.grid[0] = std::min(launch.grid[0], tiles);
  void* const arguments[] = {&params, &maps.q, &maps.k, &maps.v, &maps.dout, &p_map, &ds_map};
  device.launch(load(step), launch, call.stream, arguments);
}

/// dk and dv of the chunk too.
void launch_terms(const Device& device, const BackwardCall& call, const Maps& from,
                  const StoredOperand& ds, const std::byte* statistics, const Loader& load) {
  const Step& step = call.detail.unfused->pairs;
  StoredParams params = stored_params(call, statistics, ds, step.config.block_n);
  params.faults = device.faults().words();
  Launch launch = step.launch;
  launch.grid[0] = params.tiles * (ds.matrices / params.group);
  Maps maps = from;
  TensorMap ds_map = encode_stored(device.driver(), ds, Dtype::bf16);
  void* const arguments[] = {&params, &maps.k, &maps.v, &maps.q, &maps.dout, &ds_map};
  device.launch(load(step), launch, call.stream, arguments);
}

/// The gradients that products make of one chunk of keys.
void launch_products(const Device& device, const BackwardCall& call, const Maps& maps,
                     const StoredOperand& p, const StoredOperand& ds, const Places& at,
                     const Loader& load) {
  const UnfusedBackward& form = *call.detail.unfused;
  const Problem& problem = call.problem;
  const std::int64_t per_head = problem.num_heads / problem.num_heads_kv;
  bool overlaps = false;
  const auto launch = [&](const Product& product, const StoredOperand& a, const TensorMap& b,
                          const Tensor& out, float factor, float* sums) {
    if (out.data == nullptr) return;
    ProductCall one{product, problem, call.detail.score, a, b, out, factor};
    one.sums = sums;
    const std::int64_t head = a.place.head_first % per_head;
    const bool by_keys = product.step.config.by_keys;
    one.is_first = by_keys ? head == 0 : a.place.key_first == 0;
    one.is_last = by_keys ? head + a.matrices >= per_head
                          : a.place.key_first + a.place.keys == problem.seqlen_k;
    one.overlaps_product = overlaps;
    launch_product(device, one, call.stream, load);
    overlaps = true;
  };
  const bool sums_heads = form.heads_of_group > 0, sums_keys = form.chunks.sums_bytes > 0;
  const float scale = problem.scale;
  if (form.dv) {
    launch(*form.dv, p, maps.dout64, call.args.dv, 1.0F, sums_heads ? at.dv_sums : nullptr);
  }
  if (form.dk) {
    launch(*form.dk, ds, maps.q64, call.args.dk, scale, sums_heads ? at.dk_sums : nullptr);
  }
  launch(form.dq, ds, maps.k64, call.args.dq, scale, sums_keys ? at.sums : nullptr);
}

void launch_group(const Device& device, const BackwardCall& call, const Group& group,
                  const Maps& maps, const Places& at, const std::byte* statistics,
                  const Loader& load) {
  const Problem& problem = call.problem;
  const UnfusedBackward& form = *call.detail.unfused;
  for (std::int64_t key = 0; key < problem.seqlen_k; key += form.chunks.keys_at_once) {
    const std::int64_t keys = std::min(form.chunks.keys_at_once, problem.seqlen_k - key);
    StoredOperand p;
    p.data = at.p;
    p.place = {static_cast<int>(group.q.first), static_cast<int>(key), static_cast<int>(keys),
               static_cast<int>(call.detail.statistics->rows_padded)};
    p.matrices = group.q.count;
    p.keys_padded = round_up(keys, 128);
    p.planes = form.planes;
    StoredOperand ds = p;
    ds.data = at.ds;
    if (form.stores_p()) {
      launch_scores(device, call, maps, p, ds, statistics, load);
    } else {
      launch_terms(device, call, maps, ds, statistics, load);
    }
    launch_products(device, call, maps, p, ds, at, load);
  }
}

}  // namespace

bool launch_unfused(const Device& device, const BackwardCall& call, std::byte* workspace,
                    const Loader& load) {
  const UnfusedBackward& form = *call.detail.unfused;
  const Places at = places_of(call, workspace);
  std::optional<Maps> maps;
  if (!form.split) {
    maps = encode_maps(device.driver(), operands_of(call), form.pairs.config);
    if (!maps) return false;
  }
  launch_statistics(device, call, workspace, load);
  if (form.split) {
    SplitParams clear{};
    clear.has_special = at.has_special;
    launch_split(device, call, clear, 1, load);
  }
  for (const Group& group : groups_of(call)) {
    if (form.split) {
      const Operands terms = split_group(device, call, group, at, load);
      maps = encode_maps(device.driver(), terms, form.pairs.config);
      if (!maps) throw Error(Code::internal, "terms: must be addressable by the copy engine");
    }
    launch_group(device, call, group, *maps, at, workspace, load);
  }
  // Inf - Inf between the terms of one number would be NaN: such operands are computed whole.
  if (form.split) launch_mma_backward(device, call, workspace, load, at.has_special);
  return true;
}

}  // namespace ingot::cuda
