#include "jax_calls.hpp"

#include <ingot/ingot.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "errors.hpp"
#include "jax_buffers.hpp"
#include "openmp.hpp"
#include "part_tensors.hpp"
#include "shared_context.hpp"

namespace ingot_python {
namespace {

xla::ErrorCode code_of(ingot_status status) {
  return status == INGOT_INVALID_ARGUMENT ? xla::ErrorCode::invalid_argument
         : status == INGOT_UNSUPPORTED    ? xla::ErrorCode::unimplemented
                                          : xla::ErrorCode::internal;
}

void require(ingot_status status) {
  if (status == INGOT_OK) return;
  throw CallError(status, ingot_last_error());
}

/// Handlers run on XLA's threads, without the interpreter's lock.
ingot_context* context() {
  ingot_context* handle = nullptr;
  require(shared_context(&handle));
  return handle;
}

struct Call {
  /// first_part: of the arguments, the one after which there are parts only.
  Call(const xla::CallFrame& frame, bool cuda, std::int64_t first_part)
      : q(buffer(frame.arguments, 0, "q", {4, 4})),
        k(buffer(frame.arguments, 1, "k", {4, 4})),
        v(buffer(frame.arguments, 2, "v", {4, 4})) {
    ingot_problem_init(&problem);
    problem.batch = q.xla.dims[0];
    problem.num_heads = q.xla.dims[1];
    problem.num_heads_kv = k.xla.dims[1];
    problem.seqlen_q = q.xla.dims[2];
    problem.seqlen_k = k.xla.dims[2];
    problem.head_dim = q.xla.dims[3];
    problem.head_dim_v = v.xla.dims[3];
    problem.q_dtype = dtype_of(q);
    problem.k_dtype = dtype_of(k);
    problem.v_dtype = dtype_of(v);
    require_shape(k, k_shape());
    require_shape(v, v_shape());
    const xla::Attributes& a = frame.attributes;
    problem.causal = static_cast<ingot_causal>(attribute<std::int64_t>(a, "causal"));
    problem.window_left = attribute<std::int64_t>(a, "window_left");
    problem.window_right = attribute<std::int64_t>(a, "window_right");
    set_factors(problem, attribute<double>(a, "scale"), attribute<double>(a, "softcap"));
    problem.workspace_limit = attribute<std::int64_t>(a, "workspace_limit");
    problem.precision = static_cast<ingot_precision>(attribute<std::int64_t>(a, "precision"));
    device_type = cuda ? device_cuda : device_cpu;
    add_parts(frame, first_part);
    device = problem.q_dtype == INGOT_F64 ? "reference" : "cpu";
    if (!cuda) return;
    device = "cuda:" + std::to_string(ordinal_of(frame));
    stream = stream_of(frame);
  }

  /// The arguments that attribute "parts" has a bit for, in the order of part_views.
  void add_parts(const xla::CallFrame& frame, std::int64_t index) {
    const std::int64_t bits = optional_attribute<std::int64_t>(frame.attributes, "parts");
    if (bits < 0 || bits > 63) {
      invalid("parts: must be from 0 to 63, got " + std::to_string(bits));
    }
    const auto next = [&](int bit, const char* name, Ranks ranks,
                          Element element) -> std::optional<View> {
      if ((bits >> bit & 1) == 0) return std::nullopt;
      return view_of(buffer(frame.arguments, index++, name, ranks), element, device_type);
    };
    parts.alibi_slopes = next(0, "alibi_slopes", {1, 2}, Element::number);
    parts.bias = next(1, "bias", {2, 4}, Element::number);
    parts.mask = next(2, "mask", {2, 4}, Element::boolean);
    parts.sinks = next(3, "sinks", {1, 1}, Element::number);
    parts.prefix_len = next(4, "prefix_len", {1, 1}, Element::int32);
    parts.dropout = optional_attribute<double>(frame.attributes, "dropout");
    if ((bits >> 5 & 1) != 0) read_state(buffer(frame.arguments, index, "seed", {1, 1}));
    ingot_python::add_parts(problem, parts, view_of(q, Element::number, device_type));
  }

  /// Four words of 32 bits: seed and offset, the lower halves first.
  void read_state(const Buffer& state) {
    require_shape(state, {4, 0, 0, 0});
    if (state.xla.dtype != xla::DataType::u32) {
      invalid("seed.dtype: must be uint32, got " + name_of(state.xla.dtype));
    }
    if (device_type == device_cuda) {
      parts.state = reinterpret_cast<std::uintptr_t>(state.xla.data);
      return;
    }
    const auto* const words = static_cast<const std::uint32_t*>(state.xla.data);
    parts.seed = words[0] | std::uint64_t{words[1]} << 32;
    parts.offset = words[2] | std::uint64_t{words[3]} << 32;
  }

  std::array<std::int64_t, 4> q_shape() const {
    return {problem.batch, problem.num_heads, problem.seqlen_q, problem.head_dim};
  }
  std::array<std::int64_t, 4> k_shape() const {
    return {problem.batch, problem.num_heads_kv, problem.seqlen_k, problem.head_dim};
  }
  std::array<std::int64_t, 4> v_shape() const {
    return {problem.batch, problem.num_heads_kv, problem.seqlen_k, problem.head_dim_v};
  }
  std::array<std::int64_t, 4> o_shape() const {
    return {problem.batch, problem.num_heads, problem.seqlen_q, problem.head_dim_v};
  }

  /// A tensor besides q, k and v; its type goes to *dtype.
  ingot_tensor tensor(const xla::Values& values, std::int64_t index, const char* name,
                      const std::array<std::int64_t, 4>& shape, ingot_dtype* dtype) const {
    const Buffer found = buffer(values, index, name, {4, 4});
    require_shape(found, shape);
    *dtype = dtype_of(found);
    return contiguous(found);
  }

  /// Of a part; its type goes to *dtype.
  View gradient(const xla::Values& values, std::int64_t index, const char* name,
                const std::optional<View>& of, ingot_dtype* dtype) const {
    if (!of) invalid(std::string(name) + ": must not be asked for, there is no " + (name + 1));
    const auto rank = static_cast<int>(of->rank);
    const View view =
        view_of(buffer(values, index, name, {rank, rank}), Element::number, device_type);
    require_shape(view, name, *of);
    *dtype = view.dtype;
    return view;
  }

  ingot_tensor lse(const xla::Values& values, std::int64_t index) const {
    const Buffer found = buffer(values, index, "lse", {3, 3});
    require_shape(found, o_shape());
    if (found.xla.dtype != xla::DataType::f32) {
      invalid("lse.dtype: must be float32, got " + name_of(found.xla.dtype));
    }
    return contiguous(found);
  }

  static std::int32_t ordinal_of(const xla::CallFrame& frame) {
    if (frame.api->struct_size < sizeof(xla::Api)) return 0;  // an XLA that cannot tell
    xla::DeviceOrdinalGetArgs args{sizeof args, nullptr, frame.context, 0};
    if (frame.api->device_ordinal_get(&args) != nullptr) {
      raise(INGOT_INTERNAL, "custom call: XLA named no device");
    }
    return args.device_ordinal;
  }

  static void* stream_of(const xla::CallFrame& frame) {
    xla::StreamGetArgs args{sizeof args, nullptr, frame.context, nullptr};
    if (frame.api->stream_get(&args) != nullptr) {
      raise(INGOT_INTERNAL, "custom call: XLA gave no stream");
    }
    return args.stream;
  }

  Buffer q, k, v;
  ingot_problem problem;
  PartViews parts;
  int device_type = device_cpu;
  std::string device;
  void* stream = nullptr;
};

void run_forward(const xla::CallFrame& frame, bool cuda) {
  Call call(frame, cuda, 3);
  ingot_forward_args args;
  ingot_forward_args_init(&args);
  args.q = contiguous(call.q);
  args.k = contiguous(call.k);
  args.v = contiguous(call.v);
  args.o = call.tensor(frame.results, 0, "o", call.o_shape(), &call.problem.o_dtype);
  args.lse = call.lse(frame.results, 1);
  args.parts = part_tensors(call.parts);
  args.submission.stream = call.stream;
  require(ingot_attention_forward(context(), call.device.c_str(), &call.problem, &args));
}

void run_backward(const xla::CallFrame& frame, bool cuda) {
  Call call(frame, cuda, 6);
  ingot_problem& problem = call.problem;
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  args.q = contiguous(call.q);
  args.k = contiguous(call.k);
  args.v = contiguous(call.v);
  args.o = call.tensor(frame.arguments, 3, "o", call.o_shape(), &problem.o_dtype);
  args.lse = call.lse(frame.arguments, 4);
  args.dout = call.tensor(frame.arguments, 5, "dout", call.o_shape(), &problem.dout_dtype);
  args.dq = call.tensor(frame.results, 0, "dq", call.q_shape(), &problem.dq_dtype);
  args.dk = call.tensor(frame.results, 1, "dk", call.k_shape(), &problem.dk_dtype);
  args.dv = call.tensor(frame.results, 2, "dv", call.v_shape(), &problem.dv_dtype);
  args.parts = part_tensors(call.parts);
  const auto wanted = optional_attribute<std::int64_t>(frame.attributes, "gradients");
  if (wanted < 0 || wanted > 3) {
    invalid("gradients: must be from 0 to 3, got " + std::to_string(wanted));
  }
  std::optional<View> dbias, dsinks;
  if ((wanted & 1) != 0) {
    dbias = call.gradient(frame.results, 3, "dbias", call.parts.bias, &problem.dbias_dtype);
    args.dbias = over_pairs(*dbias);
  }
  if ((wanted & 2) != 0) {
    dsinks = call.gradient(frame.results, 3 + (wanted & 1), "dsinks", call.parts.sinks,
                           &problem.dsinks_dtype);
    args.dsinks = over_heads(*dsinks);
  }
  args.submission.stream = call.stream;
  require(ingot_attention_backward(context(), call.device.c_str(), &problem, &args));
}

/// XLA asks once for the version a handler was written for; else this is a call.
bool answer_metadata(xla::Extension* extensions) {
  for (xla::Extension* e = extensions; e != nullptr; e = e->next) {
    if (e->type != xla::extension_is_metadata) continue;
    xla::Metadata& metadata = *reinterpret_cast<xla::MetadataExtension*>(e)->metadata;
    // The least that XLA takes; what is used here has not changed since.
    metadata.api_version.major = 0;
    metadata.api_version.minor = 1;
    metadata.traits = xla::trait_command_buffer_compatible;
    return true;
  }
  return false;
}

template <class F>
xla::Error* guarded(xla::CallFrame* frame, F&& run) {
  if (answer_metadata(frame->extensions) || frame->stage != xla::Stage::execute) return nullptr;
  const auto error = [&](xla::ErrorCode code, const char* text) {
    xla::ErrorCreateArgs args{sizeof(xla::ErrorCreateArgs), nullptr, text, code};
    return frame->api->error_create(&args);
  };
  const OpenmpThreads none(0);  // each of XLA's threads would get a team
  try {
    run(*frame);
    return nullptr;
  } catch (const CallError& failure) {
    return error(code_of(failure.status()), failure.what());
  } catch (const std::exception& failure) {
    return error(xla::ErrorCode::internal, failure.what());
  }
}

}  // namespace

namespace {

View described(const DescribedArray& array, const char* argument, Ranks ranks, Element element) {
  const auto& [shape, dtype] = array;
  const auto rank = static_cast<int>(shape.size());
  require_rank(ranks, rank, argument);
  View view;
  view.rank = shape.size();
  std::copy(shape.begin(), shape.end(), view.shape.begin());
  view.device_type = device_cpu;
  if (element == Element::number) {
    view.dtype = dtype_named(dtype, (std::string(argument) + ".dtype").c_str());
  } else {
    view.dtype = element == Element::boolean ? dtype_bool : dtype_int32;
    if (dtype != dtype_text(view.dtype)) wrong_dtype(argument, element, dtype);
  }
  return view;
}

}  // namespace

void jax_check(const std::array<std::int64_t, 7>& shape, const std::array<std::string, 3>& dtypes,
               const std::array<std::optional<DescribedArray>, 5>& arrays, double dropout,
               const Options& options) {
  ingot_problem problem;
  ingot_problem_init(&problem);
  std::int64_t* const sizes[] = {&problem.batch,     &problem.num_heads, &problem.num_heads_kv,
                                 &problem.seqlen_q,  &problem.seqlen_k,  &problem.head_dim,
                                 &problem.head_dim_v};
  for (std::size_t i = 0; i < shape.size(); ++i) *sizes[i] = shape[i];
  problem.q_dtype = dtype_named(dtypes[0], "q.dtype");
  problem.k_dtype = dtype_named(dtypes[1], "k.dtype");
  problem.v_dtype = dtype_named(dtypes[2], "v.dtype");
  problem.causal = options.causal;
  problem.window_left = options.window_left;
  problem.window_right = options.window_right;
  set_factors(problem, options.scale, options.softcap);
  problem.precision = options.precision;
  problem.workspace_limit = options.workspace_limit;
  PartViews parts;
  if (arrays[0])
    parts.alibi_slopes = described(*arrays[0], "alibi_slopes", {1, 2}, Element::number);
  if (arrays[1]) parts.bias = described(*arrays[1], "bias", {2, 4}, Element::number);
  if (arrays[2]) parts.mask = described(*arrays[2], "mask", {2, 4}, Element::boolean);
  if (arrays[3]) parts.sinks = described(*arrays[3], "sinks", {1, 1}, Element::number);
  if (arrays[4]) parts.prefix_len = described(*arrays[4], "prefix_len", {1, 1}, Element::int32);
  parts.dropout = dropout;
  View q;
  q.dtype = problem.q_dtype;
  q.device_type = device_cpu;
  add_parts(problem, parts, q);
  ingot_context* handle = nullptr;
  check(shared_context(&handle));
  ingot_plan* plan = nullptr;
  check(ingot_plan_create(handle, problem.q_dtype == INGOT_F64 ? "reference" : "cpu", &problem,
                          &plan));
  ingot_plan_destroy(plan);
}

xla::Error* jax_forward_cpu(xla::CallFrame* frame) {
  return guarded(frame, [](const xla::CallFrame& f) { run_forward(f, false); });
}
xla::Error* jax_forward_cuda(xla::CallFrame* frame) {
  return guarded(frame, [](const xla::CallFrame& f) { run_forward(f, true); });
}
xla::Error* jax_backward_cpu(xla::CallFrame* frame) {
  return guarded(frame, [](const xla::CallFrame& f) { run_backward(f, false); });
}
xla::Error* jax_backward_cuda(xla::CallFrame* frame) {
  return guarded(frame, [](const xla::CallFrame& f) { run_backward(f, true); });
}

}  // namespace ingot_python
