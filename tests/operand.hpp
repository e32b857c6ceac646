// One tensor of a row of cases.hpp: its memory and where its elements lie. Public API only.
#pragma once

#include <memory>

#include "tensor.hpp"

namespace ingot::conformance {

inline Shape shape_q(const ingot_problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim};
}
inline Shape shape_k(const ingot_problem& p) {
  return {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim};
}
inline Shape shape_v(const ingot_problem& p) {
  return {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v};
}
inline Shape shape_o(const ingot_problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
}
inline Shape shape_lse(const ingot_problem& p) { return {p.batch, p.num_heads, p.seqlen_q, 1}; }
inline Shape shape_pairs(const ingot_problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k};
}

/// A tensor of one case: its memory (slices of one buffer where packed) and where its elements lie.
struct Operand {
  const char* name = "";
  std::shared_ptr<Buffer> buffer;
  View view;

  /// NULL for a part that is off.
  ingot_tensor tensor() const {
    return buffer == nullptr ? ingot_tensor{} : tensor_of(*buffer, view);
  }
  Dense dense() const { return buffer == nullptr ? Dense() : read_dense(*buffer, view); }
};

/// `problem` with every default dtype replaced by what it stands for.
inline ingot_problem resolved(ingot_problem p) {
  const auto settle = [](ingot_dtype& dtype, ingot_dtype fallback) {
    if (dtype == INGOT_DTYPE_DEFAULT) dtype = fallback;
  };
  settle(p.q_dtype, INGOT_F32), settle(p.k_dtype, p.q_dtype), settle(p.v_dtype, p.k_dtype);
  settle(p.o_dtype, p.q_dtype), settle(p.dout_dtype, p.o_dtype);
  settle(p.dq_dtype, p.q_dtype), settle(p.dk_dtype, p.k_dtype), settle(p.dv_dtype, p.v_dtype);
  settle(p.dbias_dtype, p.bias_dtype), settle(p.dsinks_dtype, p.sinks_dtype);
  const Shape pairs = shape_pairs(p);
  for (std::size_t i = 0; i < 4 && p.bias_dtype != INGOT_DTYPE_DEFAULT; ++i) {
    if (p.bias_shape[i] == 0) p.bias_shape[i] = pairs[i];
  }
  return p;
}

inline Operand make_operand(const char* name, ingot_dtype dtype, const Shape& shape, Layout layout,
                            bool output) {
  const View view = make_view(shape, layout, output);
  return {name, std::make_shared<Buffer>(dtype, span_of(view)), view};
}

}  // namespace ingot::conformance
