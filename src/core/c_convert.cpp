#include "core/c_convert.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.hpp"

namespace ingot {
namespace {

bool to_flag(std::int32_t value, const char* argument) {
  if (value != 0 && value != 1) {
    throw Error(Code::invalid_argument,
                std::string(argument) + ": must be 0 or 1, got " + std::to_string(value));
  }
  return value == 1;
}

Dtype resolve(ingot_dtype dtype, Dtype fallback) {
  return dtype == INGOT_DTYPE_DEFAULT ? fallback : static_cast<Dtype>(dtype);
}

}  // namespace

void require_zero(std::int64_t field, const char* argument) {
  if (field != 0) {
    throw Error(Code::invalid_argument,
                std::string(argument) + ": must be 0, got " + std::to_string(field));
  }
}

namespace {

Parts to_parts(const ingot_problem& c) {
  Parts parts;
  parts.alibi = to_flag(c.alibi, "alibi");
  parts.mask = to_flag(c.mask, "mask");
  parts.prefix = to_flag(c.prefix, "prefix");
  parts.dropout = c.dropout;
  parts.bias = c.bias_dtype != INGOT_DTYPE_DEFAULT;
  if (!parts.bias) {
    require_zero(c.dbias_dtype, "dbias_dtype, without bias_dtype");
    for (const std::int64_t extent : c.bias_shape) {
      require_zero(extent, "bias_shape, without bias_dtype");
    }
  }
  if (parts.bias) {
    parts.bias_dtype = static_cast<Dtype>(c.bias_dtype);
    parts.dbias_dtype = resolve(c.dbias_dtype, parts.bias_dtype);
    const std::int64_t full[] = {c.batch, c.num_heads, c.seqlen_q, c.seqlen_k};
    for (std::size_t i = 0; i < 4; ++i) {
      parts.bias_shape[i] = c.bias_shape[i] == 0 ? full[i] : c.bias_shape[i];
    }
  }
  parts.sinks = c.sinks_dtype != INGOT_DTYPE_DEFAULT;
  if (!parts.sinks) require_zero(c.dsinks_dtype, "dsinks_dtype, without sinks_dtype");
  if (parts.sinks) {
    parts.sinks_dtype = static_cast<Dtype>(c.sinks_dtype);
    parts.dsinks_dtype = resolve(c.dsinks_dtype, parts.sinks_dtype);
  }
  return parts;
}

}  // namespace

Problem to_problem(const ingot_problem& c) {
  require_zero(c.reserved, "problem.reserved");
  Problem p;
  p.batch = c.batch;
  p.num_heads = c.num_heads;
  p.num_heads_kv = c.num_heads_kv;
  p.seqlen_q = c.seqlen_q;
  p.seqlen_k = c.seqlen_k;
  p.head_dim = c.head_dim;
  p.head_dim_v = c.head_dim_v;
  p.q = resolve(c.q_dtype, Dtype::f32);
  p.k = resolve(c.k_dtype, p.q);
  p.v = resolve(c.v_dtype, p.k);
  p.o = resolve(c.o_dtype, p.q);
  p.dout = resolve(c.dout_dtype, p.o);
  p.dq = resolve(c.dq_dtype, p.q);
  p.dk = resolve(c.dk_dtype, p.k);
  p.dv = resolve(c.dv_dtype, p.v);
  p.causal = static_cast<Causal>(c.causal);
  p.window_left = c.window_left;
  p.window_right = c.window_right;
  const auto dim = static_cast<double>(std::max<std::int64_t>(c.head_dim, 1));
  p.scale = c.scale == 0.0F ? static_cast<float>(1.0 / std::sqrt(dim)) : c.scale;
  p.softcap = c.softcap;
  p.precision = static_cast<Precision>(c.precision);
  if (c.workspace_limit != 0) p.workspace_limit = c.workspace_limit;
  p.parts = to_parts(c);
  return p;
}

namespace {

Tensor to_tensor(const ingot_tensor& t) {
  return {t.data, {t.stride[0], t.stride[1], t.stride[2], t.stride[3]}};
}

/// lse has three dimensions; the fourth is one element wide.
Tensor to_lse(const ingot_tensor& t) {
  return {t.data, {t.stride[0], t.stride[1], t.stride[2], 1}};
}

/// A tensor of which dimensions [first, end) are looked at; the others are 1 wide.
Tensor to_short_tensor(const ingot_tensor& t, std::size_t first, std::size_t end) {
  Tensor tensor{t.data, {0, 0, 0, 1}};
  for (std::size_t i = first; i < end; ++i) tensor.stride[i] = t.stride[i];
  return tensor;
}

PartInputs to_parts(const ingot_part_tensors& c) {
  return {to_short_tensor(c.alibi_slopes, 0, 2),
          to_tensor(c.bias),
          to_tensor(c.mask),
          to_short_tensor(c.sinks, 1, 2),
          to_short_tensor(c.prefix_len, 0, 1),
          c.dropout_seed,
          c.dropout_offset,
          c.dropout_state};
}

std::span<std::byte> to_workspace(void* data, std::size_t bytes) {
  if (data == nullptr && bytes != 0) {
    throw Error(Code::invalid_argument,
                "workspace: must not be NULL with workspace_bytes " + std::to_string(bytes));
  }
  return {static_cast<std::byte*>(data), bytes};
}

}  // namespace

ForwardArgs to_args(const ingot_forward_args& c) {
  return {to_tensor(c.q),
          to_tensor(c.k),
          to_tensor(c.v),
          to_tensor(c.o),
          to_lse(c.lse),
          to_workspace(c.workspace, c.workspace_bytes),
          {},
          to_parts(c.parts)};
}

BackwardArgs to_args(const ingot_backward_args& c) {
  return {to_tensor(c.q),
          to_tensor(c.k),
          to_tensor(c.v),
          to_tensor(c.o),
          to_lse(c.lse),
          to_tensor(c.dout),
          to_tensor(c.dq),
          to_tensor(c.dk),
          to_tensor(c.dv),
          to_workspace(c.workspace, c.workspace_bytes),
          {},
          to_parts(c.parts),
          to_tensor(c.dbias),
          to_short_tensor(c.dsinks, 1, 2)};
}

}  // namespace ingot
