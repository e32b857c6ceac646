// The host's part of kernels/forward_sm90.cuh: tensor maps and run-time arguments.
#include <algorithm>
#include <optional>

#include "cuda/kernels/params.h"
#include "cuda/launch.hpp"
#include "cuda/tensor_map.hpp"

namespace ingot::cuda {
namespace {

constexpr std::uint32_t panel = 64;  // columns of a box: 128 bytes
constexpr std::int64_t warpgroup_rows = 64;
constexpr std::int64_t split_flag_bytes = 256;  // in front of the terms

struct Maps {
  TensorMap q, k, v;
};

/// Rows of a tile are (query, head of the group): the heads of a group become a dimension.
TensorMapSpec packed_spec_of(const ConstTensor& q, const Problem& p) {
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  TensorMapSpec spec;
  spec.data = q.data;
  spec.dtype = p.q;
  spec.rank = 5;
  spec.size = {p.head_dim, group, p.seqlen_q, p.num_heads_kv, p.batch};
  spec.stride = {q.stride[3], q.stride[1], q.stride[2], group * q.stride[1], q.stride[0]};
  spec.box = {panel, static_cast<std::uint32_t>(group),
              static_cast<std::uint32_t>(warpgroup_rows / group), 1, 1};
  return spec;
}

/// One tensor of f32 as terms of bf16 at `to`, and their map.
std::optional<TensorMap> split_tensor(const Device& device, const ForwardCall& call,
                                      const ConstTensor& t, std::int64_t heads, std::int64_t seqlen,
                                      std::int64_t dim, std::int64_t box_rows, int* has_special,
                                      std::byte*& to, const Loader& load) {
  const Step& step = *call.detail.fast->split;
  SplitParams params{};
  params.from = static_cast<const float*>(t.data);
  params.has_special = has_special;
  params.to = to;
  std::copy_n(t.stride.begin(), 4, params.stride);
  params.rows = call.problem.batch * heads * seqlen;
  params.seqlen = seqlen;
  params.plane = plane_elements(params.rows, dim);
  params.num_heads = static_cast<int>(heads);
  params.dim = static_cast<int>(dim);
  params.dim_padded = static_cast<int>(plane_elements(1, dim));
  void* const arguments[] = {&params};
  Launch launch = step.launch;
  launch.grid[0] = (params.plane / 8 + launch.threads - 1) / launch.threads;
  device.launch(load(step), launch, call.stream, arguments);

  const std::int64_t row = params.dim_padded;
  const ConstTensor planes{to, {heads * seqlen * row, seqlen * row, row, 1}};
  to += params.plane * step.config.planes * size_bytes(Dtype::bf16);
  TensorMapSpec spec =
      boxes_of(planes, Dtype::bf16, {call.problem.batch, heads, seqlen, dim}, box_rows);
  spec.size[4] = step.config.planes;
  spec.stride[4] = params.plane;
  return encode(device.driver(), spec);
}

/// q, k and v of f32 as terms of bf16 from `to` on; `to` becomes the end of them.
std::optional<Maps> split_operands(const Device& device, const ForwardCall& call, int* has_special,
                                   std::byte*& to, const Loader& load) {
  const Problem& p = call.problem;
  const Step& step = *call.detail.fast->split;
  SplitParams clear{};
  clear.has_special = has_special;
  void* const arguments[] = {&clear};
  Launch one = step.launch;
  one.grid[0] = 1;
  device.launch(load(step), one, call.stream, arguments);

  const std::int64_t block_n = call.detail.fast->step.config.block_n;
  const auto q = split_tensor(device, call, call.args.q, p.num_heads, p.seqlen_q, p.head_dim,
                              warpgroup_rows, has_special, to, load);
  const auto k = split_tensor(device, call, call.args.k, p.num_heads_kv, p.seqlen_k, p.head_dim,
                              block_n, has_special, to, load);
  const auto v = split_tensor(device, call, call.args.v, p.num_heads_kv, p.seqlen_k, p.head_dim_v,
                              block_n, has_special, to, load);
  if (!q || !k || !v) return std::nullopt;
  return Maps{*q, *k, *v};
}

std::optional<Maps> encode_maps(const Driver& driver, const ForwardCall& call) {
  const Problem& p = call.problem;
  const Config& config = call.detail.fast->step.config;
  const std::int64_t keys = config.block_n / config.cluster;
  const auto q =
      encode(driver, config.packed ? packed_spec_of(call.args.q, p)
                                   : boxes_of(call.args.q, p.q,
                                              {p.batch, p.num_heads, p.seqlen_q, p.head_dim},
                                              warpgroup_rows));
  if (!q) return std::nullopt;
  const auto k = encode(
      driver, boxes_of(call.args.k, p.k, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim}, keys));
  if (!k) return std::nullopt;
  const auto v =
      encode(driver,
             boxes_of(call.args.v, p.v, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v}, keys));
  if (!v) return std::nullopt;
  return Maps{*q, *k, *v};
}

ForwardParams params_of(const ForwardCall& call) {
  const Problem& p = call.problem;
  const Sm90Forward& fast = *call.detail.fast;
  const std::int64_t heads = fast.step.config.packed ? p.num_heads_kv : p.num_heads;
  ForwardParams params{};
  params.score = call.detail.score;
  params.o = call.args.o.data;
  params.lse = static_cast<float*>(call.args.lse.data);
  std::copy_n(call.args.o.stride.begin(), 4, params.o_stride);
  std::copy_n(call.args.lse.stride.begin(), 3, params.lse_stride);
  params.num_heads = static_cast<int>(heads);
  params.group = static_cast<int>(p.num_heads / p.num_heads_kv);
  params.heads_total = static_cast<int>(p.batch * heads);
  params.heads_at_once = static_cast<int>(fast.heads_at_once);
  params.tiles = static_cast<int>(fast.tiles);
  params.units = static_cast<int>(fast.units);
  params.o_vector = store_width(call.args.o, p.o);
  params.parts = views_of(p, call.args.parts);
  return params;
}

}  // namespace

int store_width(const Tensor& o, Dtype dtype) {
  const std::int64_t element = size_bytes(dtype);
  if (o.stride[3] != 1) return 1;
  const auto all_multiples_of = [&](std::int64_t columns) {
    const auto address = reinterpret_cast<std::uintptr_t>(o.data);
    return address % static_cast<std::uintptr_t>(columns * element) == 0 &&
           std::all_of(o.stride.begin(), o.stride.begin() + 3,
                       [&](std::int64_t stride) { return stride % columns == 0; });
  };
  if (element == 2 && all_multiples_of(8)) return 8;
  return all_multiples_of(2) ? 2 : 1;
}

bool launch_sm90(const Device& device, const ForwardCall& call, std::byte* workspace,
                 const Loader& load) {
  const Step& step = call.detail.fast->step;
  const bool split = call.detail.fast->split.has_value();
  auto* const has_special = reinterpret_cast<int*>(workspace);
  std::byte* memory = split ? workspace + split_flag_bytes : workspace;
  std::optional<Maps> maps = split ? split_operands(device, call, has_special, memory, load)
                                   : encode_maps(device.driver(), call);
  if (!maps) return false;
  ForwardParams params = params_of(call);
  params.faults = device.faults().words();
  void* const arguments[] = {&params, &maps->q, &maps->k, &maps->v};
  device.launch(load(step), step.launch, call.stream, arguments);
  // Inf - Inf between the terms of one number would be NaN: such operands are computed whole.
  if (split) launch_mma(device, call, memory, load, has_special);
  return true;
}

}  // namespace ingot::cuda
