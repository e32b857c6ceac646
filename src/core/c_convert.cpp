#include "core/c_convert.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.hpp"

namespace ingot {
namespace {

Dtype resolve(ingot_dtype dtype, Dtype fallback) {
  return dtype == INGOT_DTYPE_DEFAULT ? fallback : static_cast<Dtype>(dtype);
}

}  // namespace

Problem to_problem(const ingot_problem& c) {
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
          {}};
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
          {}};
}

}  // namespace ingot
