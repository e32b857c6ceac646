// The host's part of kernels/forward_mma.cuh, decode.cuh and combine.cuh: run-time arguments.
#include <algorithm>
#include <cmath>

#include "core/part_params.hpp"
#include "cuda/kernels/mma_params.h"
#include "cuda/launch.hpp"
#include "cuda/tensor_map.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t vector_bytes = 16;

/// Rows may be copied 16 bytes at a time: columns are contiguous, all else lies on 16 bytes.
bool is_vector(const void* data, const Strides& stride, std::int64_t element) {
  return stride[3] == 1 && reinterpret_cast<std::uintptr_t>(data) % vector_bytes == 0 &&
         std::all_of(stride.begin(), stride.begin() + 3,
                     [&](std::int64_t s) { return s * element % vector_bytes == 0; });
}

}  // namespace

PartViews views_of(const Problem& p, const PartInputs& inputs) {
  return {
      make_part_params(p, inputs), inputs.alibi_slopes.data, inputs.bias.data,    inputs.mask.data,
      inputs.sinks.data,           inputs.prefix_len.data,   inputs.dropout_state};
}

MatrixView view_of(const ConstTensor& t, Dtype dtype) {
  MatrixView view{};
  view.data = const_cast<void*>(t.data);
  std::copy_n(t.stride.begin(), 4, view.stride);
  view.vector = is_vector(t.data, t.stride, size_bytes(dtype)) ? 1 : 0;
  return view;
}

namespace {

/// False, and nothing launched, where the copy engine cannot address k or v.
bool launch_engine(const Device& device, const ForwardCall& call, MmaForwardParams& params,
                   const Loader& load) {
  const Problem& p = call.problem;
  const Step& step = *call.detail.any->engine;
  const std::int64_t rows = step.config.block_n * step.config.warps;
  std::optional<TensorMap> k =
      encode(device.driver(),
             boxes_of(call.args.k, p.k, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim}, rows));
  if (!k) return false;
  std::optional<TensorMap> v =
      encode(device.driver(),
             boxes_of(call.args.v, p.v, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v}, rows));
  if (!v) return false;
  if (call.detail.any->combine) {
    const std::int64_t units = p.batch * params.heads * params.row_tiles;
    params.tickets = call.tickets.take(call.stream, units);
  }
  void* const arguments[] = {&params, &*k, &*v};
  device.launch(load(step), step.launch, call.stream, arguments);
  return true;
}

}  // namespace

void launch_mma(const Device& device, const ForwardCall& call, std::byte* workspace,
                const Loader& load, const int* run_if) {
  const Problem& p = call.problem;
  const MmaForward& any = *call.detail.any;
  MmaForwardParams params{};
  params.q = view_of(call.args.q, p.q);
  params.k = view_of(call.args.k, p.k);
  params.v = view_of(call.args.v, p.v);
  params.o = view_of(call.args.o, p.o);
  params.lse = view_of(call.args.lse, Dtype::f32);
  params.score = call.detail.score;
  params.heads = any.step.config.packed ? p.num_heads_kv : p.num_heads;
  params.group = p.num_heads / p.num_heads_kv;
  params.row_tiles = any.row_tiles;
  params.column_slices = static_cast<int>(any.column_slices);
  params.splits = static_cast<int>(any.splits);
  params.run_if = run_if;
  params.faults = device.faults().words();
  params.parts = views_of(p, call.args.parts);
  if (any.combine) {
    params.partial_o = reinterpret_cast<float*>(workspace);
    params.partial_sums = reinterpret_cast<PieceSums*>(workspace + any.partial_o_bytes);
  }
  if (!any.engine || !launch_engine(device, call, params, load)) {
    void* const arguments[] = {&params};
    device.launch(load(any.step), any.step.launch, call.stream, arguments);
  }
  if (!any.combine || params.tickets != nullptr) return;

  CombineParams combine{};
  combine.partial_o = params.partial_o;
  combine.partial_sums = params.partial_sums;
  const Config& config = any.step.config;
  const bool natural = config.alibi || config.bias || config.sinks;  // adds_to_scores
  combine.factor = natural ? 1.0F : p.softcap > 0.0F ? p.softcap : std::fabs(p.scale);
  combine.o = params.o;
  combine.lse = params.lse;
  combine.rows = p.batch * p.num_heads * p.seqlen_q;
  combine.heads = p.num_heads;
  combine.seqlen_q = p.seqlen_q;
  combine.splits = params.splits;
  combine.run_if = run_if;
  void* const combine_arguments[] = {&combine};
  device.launch(load(*any.combine), any.combine->launch, call.stream, combine_arguments);
}

void launch_mma_backward(const Device& device, const BackwardCall& call, std::byte* workspace,
                         const Loader& load, const int* run_if) {
  const Problem& p = call.problem;
  const BackwardArgs& args = call.args;
  MmaBackwardParams params{};
  params.q = view_of(args.q, p.q);
  params.k = view_of(args.k, p.k);
  params.v = view_of(args.v, p.v);
  params.o = view_of(args.o, p.o);
  params.lse = view_of(args.lse, Dtype::f32);
  params.dout = view_of(args.dout, p.dout);
  params.dq = view_of(args.dq, p.dq);
  params.dk = view_of(args.dk, p.dk);
  params.dv = view_of(args.dv, p.dv);
  params.statistics = reinterpret_cast<RowStatistics*>(workspace);
  params.score = call.detail.score;
  params.run_if = run_if;
  params.batch = p.batch;
  params.heads = p.num_heads;
  params.group = p.num_heads / p.num_heads_kv;
  params.parts = views_of(p, args.parts);
  params.dbias = view_of(args.dbias, p.parts.dbias_dtype);
  params.dsinks = view_of(args.dsinks, p.parts.dsinks_dtype);
  std::ranges::copy(p.parts.bias_shape, params.bias_shape);
  void* const arguments[] = {&params};
  const auto launch = [&](const std::optional<MmaBackward>& kernel) {
    if (!kernel) return;
    params.tiles = kernel->tiles;
    params.column_slices = static_cast<int>(kernel->column_slices);
    device.launch(load(kernel->step), kernel->step.launch, call.stream, arguments);
  };
  launch(call.detail.delta);
  if (args.dq.data != nullptr) launch(call.detail.dq);
  if (args.dk.data != nullptr || args.dv.data != nullptr) launch(call.detail.dkv);
  if (args.dbias.data != nullptr) launch(call.detail.dbias);
  if (args.dsinks.data != nullptr) launch(call.detail.dsinks);
}

}  // namespace ingot::cuda
