#include "jax_calls.hpp"

#include <ingot/ingot.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "openmp.hpp"
#include "shared_context.hpp"

namespace ingot_python {
namespace {

struct Failure : std::runtime_error {
  Failure(xla::ErrorCode c, const std::string& text) : std::runtime_error(text), code(c) {}
  xla::ErrorCode code;
};

void check(ingot_status status) {
  if (status == INGOT_OK) return;
  const xla::ErrorCode code = status == INGOT_INVALID_ARGUMENT ? xla::ErrorCode::invalid_argument
                              : status == INGOT_UNSUPPORTED    ? xla::ErrorCode::unimplemented
                                                               : xla::ErrorCode::internal;
  throw Failure(code, ingot_last_error());
}

/// Handlers run on XLA's threads, without the interpreter's lock.
ingot_context* context() {
  ingot_context* handle = nullptr;
  check(shared_context(&handle));
  return handle;
}

const xla::Buffer& buffer(const xla::Values& values, std::int64_t index, std::int64_t rank) {
  if (index >= values.size) {
    throw Failure(xla::ErrorCode::internal,
                  "custom call: must have more than " + std::to_string(values.size) + " buffers");
  }
  const auto& found = *static_cast<const xla::Buffer*>(values.values[index]);
  if (found.rank != rank) {
    throw Failure(xla::ErrorCode::invalid_argument,
                  "buffer " + std::to_string(index) + ": must have " + std::to_string(rank) +
                      " dimensions, got " + std::to_string(found.rank));
  }
  return found;
}

template <class T>
T attribute(const xla::Attributes& attributes, std::string_view name) {
  for (std::int64_t i = 0; i < attributes.size; ++i) {
    if (std::string_view(attributes.names[i]->text, attributes.names[i]->length) != name ||
        attributes.types[i] != xla::attribute_is_scalar) {
      continue;
    }
    return *static_cast<const T*>(static_cast<const xla::Scalar*>(attributes.values[i])->value);
  }
  throw Failure(xla::ErrorCode::internal, "custom call: has no attribute " + std::string(name));
}

ingot_dtype dtype_of(const xla::Buffer& buffer) {
  switch (buffer.dtype) {
    case xla::DataType::f32:
      return INGOT_F32;
    case xla::DataType::f16:
      return INGOT_F16;
    case xla::DataType::bf16:
      return INGOT_BF16;
    case xla::DataType::f64:
      return INGOT_F64;
    default:
      throw Failure(xla::ErrorCode::invalid_argument,
                    "dtype: must be float32, float16, bfloat16 or float64, got XLA's " +
                        std::to_string(static_cast<int>(buffer.dtype)));
  }
}

ingot_tensor contiguous(const xla::Buffer& b) {
  ingot_tensor tensor{b.data, {}};
  std::int64_t stride = 1;
  for (std::int64_t i = b.rank; i-- > 0;) {
    tensor.stride[i] = stride;
    stride *= b.dims[i];
  }
  return tensor;
}

struct Call {
  Call(const xla::CallFrame& frame, bool cuda)
      : q(buffer(frame.arguments, 0, 4)),
        k(buffer(frame.arguments, 1, 4)),
        v(buffer(frame.arguments, 2, 4)) {
    ingot_problem_init(&problem);
    problem.batch = q.dims[0];
    problem.num_heads = q.dims[1];
    problem.num_heads_kv = k.dims[1];
    problem.seqlen_q = q.dims[2];
    problem.seqlen_k = k.dims[2];
    problem.head_dim = q.dims[3];
    problem.head_dim_v = v.dims[3];
    problem.q_dtype = dtype_of(q);
    problem.k_dtype = dtype_of(k);
    problem.v_dtype = dtype_of(v);
    const xla::Attributes& a = frame.attributes;
    problem.causal = static_cast<ingot_causal>(attribute<std::int64_t>(a, "causal"));
    problem.window_left = attribute<std::int64_t>(a, "window_left");
    problem.window_right = attribute<std::int64_t>(a, "window_right");
    problem.scale = static_cast<float>(attribute<double>(a, "scale"));
    problem.softcap = static_cast<float>(attribute<double>(a, "softcap"));
    problem.workspace_limit = attribute<std::int64_t>(a, "workspace_limit");
    problem.precision = static_cast<ingot_precision>(attribute<std::int64_t>(a, "precision"));
    device = problem.q_dtype == INGOT_F64 ? "reference" : "cpu";
    if (!cuda) return;
    device = "cuda:" + std::to_string(ordinal_of(frame));
    stream = stream_of(frame);
  }

  static std::int32_t ordinal_of(const xla::CallFrame& frame) {
    if (frame.api->struct_size < sizeof(xla::Api)) return 0;  // an XLA that cannot tell
    xla::DeviceOrdinalGetArgs args{sizeof args, nullptr, frame.context, 0};
    if (frame.api->device_ordinal_get(&args) != nullptr) {
      throw Failure(xla::ErrorCode::internal, "custom call: XLA named no device");
    }
    return args.device_ordinal;
  }

  static void* stream_of(const xla::CallFrame& frame) {
    xla::StreamGetArgs args{sizeof args, nullptr, frame.context, nullptr};
    if (frame.api->stream_get(&args) != nullptr) {
      throw Failure(xla::ErrorCode::internal, "custom call: XLA gave no stream");
    }
    return args.stream;
  }

  const xla::Buffer &q, &k, &v;
  ingot_problem problem;
  std::string device;
  void* stream = nullptr;
};

void run_forward(const xla::CallFrame& frame, bool cuda) {
  const Call call(frame, cuda);
  ingot_forward_args args;
  ingot_forward_args_init(&args);
  args.q = contiguous(call.q);
  args.k = contiguous(call.k);
  args.v = contiguous(call.v);
  args.o = contiguous(buffer(frame.results, 0, 4));
  args.lse = contiguous(buffer(frame.results, 1, 3));
  args.submission.stream = call.stream;
  check(ingot_attention_forward(context(), call.device.c_str(), &call.problem, &args));
}

void run_backward(const xla::CallFrame& frame, bool cuda) {
  const Call call(frame, cuda);
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  args.q = contiguous(call.q);
  args.k = contiguous(call.k);
  args.v = contiguous(call.v);
  args.o = contiguous(buffer(frame.arguments, 3, 4));
  args.lse = contiguous(buffer(frame.arguments, 4, 3));
  args.dout = contiguous(buffer(frame.arguments, 5, 4));
  args.dq = contiguous(buffer(frame.results, 0, 4));
  args.dk = contiguous(buffer(frame.results, 1, 4));
  args.dv = contiguous(buffer(frame.results, 2, 4));
  args.submission.stream = call.stream;
  check(ingot_attention_backward(context(), call.device.c_str(), &call.problem, &args));
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
  } catch (const Failure& failure) {
    return error(failure.code, failure.what());
  } catch (const std::exception& failure) {
    return error(xla::ErrorCode::internal, failure.what());
  }
}

}  // namespace

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
