#include "metal/metal_arguments.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "algorithm/score.h"
#include "core/part_params.hpp"
#include "metal/tuning.hpp"

namespace ingot::metal {
namespace {

using Extent = std::array<std::int64_t, 4>;

Operand operand(const ConstTensor& tensor, const Extent& extent, Dtype dtype) {
  return {extent, tensor.stride, size_bytes(dtype), 0};
}

StrideParams strides_of(const ConstTensor& tensor) {
  const Strides& s = tensor.stride;
  return {s[0], s[1], s[2], s[3]};
}

ScoreParams score_params(const Problem& p) {
  return make_score_params(p.scale, p.softcap, p.seqlen_q, p.seqlen_k, static_cast<int>(p.causal),
                           p.window_left, p.window_right);
}

bool is_strided(const Operand& x) { return x.extent[3] > 1 && x.stride[3] != 1; }

/// The largest power of two up to 16 that divides the address of every row.
std::int64_t row_alignment(const Operand& x) {
  std::uint64_t bits = x.address | 16;
  for (std::size_t i = 0; i < 3; ++i) {
    if (x.extent[i] > 1) bits |= static_cast<std::uint64_t>(x.stride[i] * x.element_bytes);
  }
  return static_cast<std::int64_t>(bits & (~bits + 1));
}

/// Rows that are read element by element have no say.
std::int64_t alignment_of(std::initializer_list<const Operand*> operands) {
  std::int64_t least = 16;
  for (const Operand* x : operands) {
    if (!is_strided(*x)) least = std::min(least, row_alignment(*x));
  }
  return least;
}

}  // namespace

ForwardOperands operands_of(const Problem& p, const ForwardArgs& args) {
  ForwardOperands x;
  x.q = operand(args.q, {p.batch, p.num_heads, p.seqlen_q, p.head_dim}, p.q);
  x.k = operand(args.k, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim}, p.k);
  x.v = operand(args.v, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v}, p.v);
  x.o = operand(args.o, {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v}, p.o);
  x.has_lse = args.lse.data != nullptr;
  return x;
}

BackwardOperands operands_of(const Problem& p, const BackwardArgs& args) {
  BackwardOperands x;
  const Extent q{p.batch, p.num_heads, p.seqlen_q, p.head_dim};
  const Extent k{p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim};
  const Extent v{p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v};
  const Extent o{p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
  x.q = operand(args.q, q, p.q), x.dq = operand(args.dq, q, p.dq);
  x.k = operand(args.k, k, p.k), x.dk = operand(args.dk, k, p.dk);
  x.v = operand(args.v, v, p.v), x.dv = operand(args.dv, v, p.dv);
  x.o = operand(args.o, o, p.o), x.dout = operand(args.dout, o, p.dout);
  return x;
}

Config specialise(Config c, const ForwardOperands& x) {
  c.has_lse = x.has_lse;
  c.o_strided = is_strided(x.o);
  if (c.kernel == "combine") {
    return specialise_access(c, alignment_of({&x.o}));
  }
  c.q_strided = is_strided(x.q);
  c.k_strided = is_strided(x.k);
  c.v_strided = is_strided(x.v);
  return specialise_access(c, alignment_of({&x.q, &x.k, &x.v, &x.o}));
}

Config specialise(Config c, const BackwardOperands& x) {
  c.o_strided = is_strided(x.o);
  c.dout_strided = is_strided(x.dout);
  c.q_strided = is_strided(x.q);
  c.k_strided = is_strided(x.k);
  if (c.kernel == "delta") {
    c.unit_bytes = alignment_of({&x.q, &x.k, &x.o, &x.dout});
    return c;
  }
  c.o_strided = false;
  c.v_strided = is_strided(x.v);
  if (c.kernel == "backward_dbias") {
    c.unit_bytes = alignment_of({&x.q, &x.k, &x.v, &x.dout});
  } else if (c.kernel == "backward_dq") {
    c.dq_strided = is_strided(x.dq);
    c.unit_bytes = alignment_of({&x.q, &x.k, &x.v, &x.dout, &x.dq});
  } else {
    c.dk_strided = is_strided(x.dk);
    c.dv_strided = is_strided(x.dv);
    c.unit_bytes = alignment_of({&x.q, &x.k, &x.v, &x.dout, &x.dk, &x.dv});
  }
  return c;
}

ForwardParams forward_params(const Problem& p, const ForwardArgs& args,
                             const ForwardDetail& detail) {
  ForwardParams params{};
  params.score = score_params(p);
  params.q = strides_of(args.q), params.k = strides_of(args.k), params.v = strides_of(args.v);
  params.o = strides_of(args.o), params.lse = strides_of(args.lse);
  params.split_length = detail.split_length;
  params.num_heads = static_cast<std::int32_t>(p.num_heads);
  params.group = static_cast<std::int32_t>(p.num_heads / p.num_heads_kv);
  params.splits = static_cast<std::int32_t>(detail.splits);
  params.row_blocks = static_cast<std::int32_t>(detail.row_blocks);
  params.parts = make_part_params(p, args.parts);
  return params;
}

CombineParams combine_params(const Problem& p, const ForwardArgs& args,
                             const ForwardDetail& detail) {
  CombineParams params{};
  params.o = strides_of(args.o), params.lse = strides_of(args.lse);
  params.seqlen_q = p.seqlen_q;
  params.num_heads = static_cast<std::int32_t>(p.num_heads);
  params.splits = static_cast<std::int32_t>(detail.splits);
  const bool natural = p.parts.alibi || p.parts.bias || p.parts.sinks;  // adds_to_scores
  params.factor = natural ? 1.0F : p.softcap > 0.0F ? p.softcap : std::fabs(p.scale);
  return params;
}

BackwardParams backward_params(const Problem& p, const BackwardArgs& args) {
  BackwardParams params{};
  params.score = score_params(p);
  params.q = strides_of(args.q), params.k = strides_of(args.k), params.v = strides_of(args.v);
  params.o = strides_of(args.o), params.dout = strides_of(args.dout);
  params.lse = strides_of(args.lse);
  params.delta = {p.num_heads * p.seqlen_q, p.seqlen_q, 1, p.batch * p.num_heads * p.seqlen_q};
  params.dq = strides_of(args.dq), params.dk = strides_of(args.dk);
  params.dv = strides_of(args.dv);
  params.num_heads = static_cast<std::int32_t>(p.num_heads);
  params.group = static_cast<std::int32_t>(p.num_heads / p.num_heads_kv);
  params.has_dk = args.dk.data != nullptr;
  params.has_dv = args.dv.data != nullptr;
  params.parts = make_part_params(p, args.parts);
  params.dbias = strides_of(args.dbias);
  const Shape& shape = p.parts.bias_shape;
  params.bias_shape = {shape[0], shape[1], shape[2], shape[3]};
  params.dsinks_step = args.dsinks.stride[1];
  params.batch = p.batch;
  return params;
}

}  // namespace ingot::metal
