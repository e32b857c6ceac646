#include "attention.hpp"

#include <chrono>

namespace ingot::cli {
namespace {

Sizes o_sizes(const Problem& p) { return {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v}; }

ingot_dtype dtype_or(Dtype dtype, ingot_dtype fallback) {
  return dtype == Dtype::automatic ? fallback : static_cast<ingot_dtype>(dtype);
}

template <class F>
double milliseconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

}  // namespace

void check(const AttentionInput& input, const Problem& problem) {
  if (input.dout) {
    check_dout(*input.dout, shape_of(o_sizes(problem), input.q.shape.size(), input.layout));
  }
  input.parts.tensors(problem);
}

AttentionResult attention(const Plan& plan, const Problem& p, const AttentionInput& in) {
  const std::size_t rank = in.q.shape.size();
  const auto view = [&](const Array& array) { return tensor_of(array, in.layout); };
  AttentionResult r;
  r.o = make_array(dtype_or(p.o_dtype, in.q.dtype), shape_of(o_sizes(p), rank, in.layout));
  r.lse = make_array(INGOT_F32, lse_shape(o_sizes(p), rank));
  const Tensor lse = lse_tensor(r.lse, o_sizes(p));
  const PartTensors parts = in.parts.tensors(p);
  r.forward_ms = milliseconds([&] {
    plan.forward({.q = view(in.q),
                  .k = view(in.k),
                  .v = view(in.v),
                  .o = view(r.o),
                  .lse = lse,
                  .parts = parts});
  });
  if (!in.dout) return r;
  r.dq = make_array(dtype_or(p.dq_dtype, in.q.dtype), in.q.shape);
  r.dk = make_array(dtype_or(p.dk_dtype, in.k.dtype), in.k.shape);
  r.dv = make_array(dtype_or(p.dv_dtype, in.v.dtype), in.v.shape);
  if (in.wants_dbias) r.dbias = make_dbias(in.parts);
  if (in.wants_dsinks) r.dsinks = make_dsinks(in.parts, p);
  r.backward_ms = milliseconds([&] {
    plan.backward({.q = view(in.q),
                   .k = view(in.k),
                   .v = view(in.v),
                   .o = view(r.o),
                   .lse = lse,
                   .dout = view(*in.dout),
                   .dq = view(*r.dq),
                   .dk = view(*r.dk),
                   .dv = view(*r.dv),
                   .parts = parts,
                   .dbias = r.dbias ? bias_tensor(*r.dbias, p) : Tensor{},
                   .dsinks = r.dsinks ? sinks_tensor(*r.dsinks, p) : Tensor{}});
  });
  return r;
}

}  // namespace ingot::cli
