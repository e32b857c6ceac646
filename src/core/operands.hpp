// THE list of the tensors of a call: name, shape, dtype, and whether the call reads or writes them.
// Whoever checks, copies or binds tensors goes through it, so that a new one is added here alone.
#pragma once

#include "core/problem.hpp"

namespace ingot {

inline std::int64_t count_of(const Shape& shape) {
  return shape[0] * shape[1] * shape[2] * shape[3];  // validate() has bounded it
}

/// What a problem says of one tensor of its calls.
struct OperandInfo {
  const char* name = "";
  Shape shape{};
  Dtype dtype = Dtype::f32;
  bool is_part = false;  ///< of PartInputs or a gradient of one
  bool is_on = true;     ///< false: a part that the problem does not turn on
};

inline Shape query_shape(const Problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim};
}
inline Shape key_shape(const Problem& p) {
  return {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim};
}
inline Shape value_shape(const Problem& p) {
  return {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v};
}
inline Shape output_shape(const Problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
}
inline Shape lse_shape(const Problem& p) { return {p.batch, p.num_heads, p.seqlen_q, 1}; }
inline Shape pair_shape(const Problem& p) { return {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k}; }
inline Shape sinks_shape(const Problem& p) { return {1, p.num_heads, 1, 1}; }

/// Calls f(info, tensor) for what the parts read. Args: PartInputs, const or not.
template <class Inputs, class F>
void for_each_part_input(const Problem& p, Inputs& inputs, F&& f) {
  const Parts& parts = p.parts;
  f(OperandInfo{"alibi_slopes", {p.batch, p.num_heads, 1, 1}, Dtype::f32, true, parts.alibi},
    inputs.alibi_slopes);
  f(OperandInfo{"bias", parts.bias_shape, parts.bias_dtype, true, parts.bias}, inputs.bias);
  f(OperandInfo{"mask", pair_shape(p), Dtype::u8, true, parts.mask}, inputs.mask);
  f(OperandInfo{"sinks", sinks_shape(p), parts.sinks_dtype, true, parts.sinks}, inputs.sinks);
  f(OperandInfo{"prefix_len", {p.batch, 1, 1, 1}, Dtype::i32, true, parts.prefix},
    inputs.prefix_len);
}

/// Calls f(info, tensor) for every tensor that the forward pass reads.
template <class Args, class F>
void for_each_input_of_forward(const Problem& p, Args& args, F&& f) {
  f(OperandInfo{"q", query_shape(p), p.q}, args.q);
  f(OperandInfo{"k", key_shape(p), p.k}, args.k);
  f(OperandInfo{"v", value_shape(p), p.v}, args.v);
  for_each_part_input(p, args.parts, f);
}

/// Calls f(info, tensor) for every tensor that the forward pass writes; lse may be null.
template <class Args, class F>
void for_each_output_of_forward(const Problem& p, Args& args, F&& f) {
  f(OperandInfo{"o", output_shape(p), p.o}, args.o);
  f(OperandInfo{"lse", lse_shape(p), Dtype::f32}, args.lse);
}

/// Calls f(info, tensor) for every tensor that the backward pass reads.
template <class Args, class F>
void for_each_input_of_backward(const Problem& p, Args& args, F&& f) {
  f(OperandInfo{"q", query_shape(p), p.q}, args.q);
  f(OperandInfo{"k", key_shape(p), p.k}, args.k);
  f(OperandInfo{"v", value_shape(p), p.v}, args.v);
  f(OperandInfo{"o", output_shape(p), p.o}, args.o);
  f(OperandInfo{"lse", lse_shape(p), Dtype::f32}, args.lse);
  f(OperandInfo{"dout", output_shape(p), p.dout}, args.dout);
  for_each_part_input(p, args.parts, f);
}

/// Calls f(info, tensor) for every tensor that the backward pass writes; each may be null.
template <class Args, class F>
void for_each_output_of_backward(const Problem& p, Args& args, F&& f) {
  f(OperandInfo{"dq", query_shape(p), p.dq}, args.dq);
  f(OperandInfo{"dk", key_shape(p), p.dk}, args.dk);
  f(OperandInfo{"dv", value_shape(p), p.dv}, args.dv);
  f(OperandInfo{"dbias", p.parts.bias_shape, p.parts.dbias_dtype, true, p.parts.bias}, args.dbias);
  f(OperandInfo{"dsinks", sinks_shape(p), p.parts.dsinks_dtype, true, p.parts.sinks}, args.dsinks);
}

}  // namespace ingot
