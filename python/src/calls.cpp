#include "calls.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "part_tensors.hpp"
#include "parts.hpp"
#include "plans.hpp"
#include "submit.hpp"

namespace ingot_python {
namespace {

void require_shape(const View& view, const char* argument, std::size_t rank,
                   const std::array<std::int64_t, 4>& shape) {
  if (view.shape != shape) {
    invalid(std::string(argument) + ".shape: must be " + shape_text(shape, rank) + ", got " +
            shape_text(view.shape, rank));
  }
}

bool in_host_memory(const View& view) {
  return view.device_type == device_cpu || view.device_type == device_cuda_host;
}

/// `named` or, where it is empty, the device whose memory holds q. Memory of one device is no
/// memory of another; what lies in host memory any device can be given.
std::string chosen_device(const View& q, const std::string& named) {
  if (named.empty()) return device_of(q);
  if (in_host_memory(q)) return named;
  const std::string device = device_of(q);
  if (named != device && named != "auto") {
    invalid("device: must be " + device + ", whose memory holds q, got " + named);
  }
  return device;
}

/// All tensors of a call are on the device of q, so all are slices or none is.
ingot_memory memory_of(const View& q) {
  return q.slice.buffer != nullptr ? INGOT_MEMORY_METAL_SLICE : INGOT_MEMORY_ADDRESS;
}

/// The rule is the library's, which cannot tell what became 0 or infinite on its way.
float narrowed(double number, const char* argument_and_rule) {
  const auto narrow = static_cast<float>(number);
  if ((narrow == 0) != (number == 0) || std::isinf(narrow) != std::isinf(number)) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", number);
    invalid(std::string(argument_and_rule) + ", got " + text);
  }
  return narrow;
}

ingot_problem problem_of(const View& q, const View& k, const View& v, const Options& options) {
  ingot_problem p;
  std::memset(&p, 0, sizeof p);  // padding too: plans are found by comparing bytes
  ingot_problem_init(&p);
  p.batch = q.shape[0];
  p.num_heads = q.shape[1];
  p.num_heads_kv = k.shape[1];
  p.seqlen_q = q.shape[2];
  p.seqlen_k = k.shape[2];
  p.head_dim = q.shape[3];
  p.head_dim_v = v.shape[3];
  p.q_dtype = q.dtype;
  p.k_dtype = k.dtype;
  p.v_dtype = v.dtype;
  p.causal = options.causal;
  p.window_left = options.window_left;
  p.window_right = options.window_right;
  set_factors(p, options.scale, options.softcap);
  p.precision = options.precision;
  p.workspace_limit = options.workspace_limit;
  require_shape(k, "k", 4, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim});
  require_shape(v, "v", 4, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v});
  require_device(k, "k", q);
  require_device(v, "v", q);
  return p;
}

}  // namespace

void set_factors(ingot_problem& problem, double scale, double softcap) {
  problem.scale = narrowed(scale, "scale: its magnitude must be from 1e-37 to 1e37");
  problem.softcap = narrowed(softcap, "softcap: must be 0 or from 1e-37 to 1e37");
}

std::string device_of(const View& view) {
  if (in_host_memory(view)) return view.dtype == INGOT_F64 ? "reference" : "cpu";
  if (view.device_type == device_cuda) return "cuda:" + std::to_string(view.device_id);
  if (view.device_type == device_metal) return "metal:" + std::to_string(view.device_id);
  invalid("q: must be in the memory of a CPU, CUDA or Metal device, got DLPack device type " +
          std::to_string(view.device_type));
}

namespace {

struct ForwardViews {
  View q, k, v, o;
  std::optional<View> lse;
  PartViews parts;
};

struct BackwardViews {
  View q, k, v, o, lse, dout;
  std::optional<View> dq, dk, dv;
  PartViews parts;
  std::optional<View> dbias, dsinks;
};

std::array<std::int64_t, 4> shape_of_o(const ingot_problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
}

void require_lse(const View& lse, const ingot_problem& p, const View& q) {
  require_shape(lse, "lse", 3, {p.batch, p.num_heads, p.seqlen_q, 0});
  if (lse.dtype != INGOT_F32) {
    invalid(std::string("lse.dtype: must be float32, got ") + dtype_text(lse.dtype));
  }
  require_device(lse, "lse", q);
}

/// Throws unless all tensors agree with each other.
ingot_problem problem_of(const ForwardViews& x, const Options& options) {
  ingot_problem p = problem_of(x.q, x.k, x.v, options);
  require_shape(x.o, "o", 4, shape_of_o(p));
  require_device(x.o, "o", x.q);
  p.o_dtype = x.o.dtype;
  if (x.lse) require_lse(*x.lse, p, x.q);
  add_parts(p, x.parts, x.q);
  return p;
}

ingot_problem problem_of(const BackwardViews& x, const Options& options) {
  ingot_problem p = problem_of(x.q, x.k, x.v, options);
  require_shape(x.o, "o", 4, shape_of_o(p));
  require_device(x.o, "o", x.q);
  require_lse(x.lse, p, x.q);
  require_shape(x.dout, "dout", 4, shape_of_o(p));
  require_device(x.dout, "dout", x.q);
  p.o_dtype = x.o.dtype;
  p.dout_dtype = x.dout.dtype;
  add_parts(p, x.parts, x.q);
  const auto gradient = [&](const std::optional<View>& view, const char* argument,
                            const std::optional<View>& of, ingot_dtype& dtype) {
    if (!view) return;
    if (!of) invalid(std::string(argument) + ": must be None, there is no " + (argument + 1));
    require_shape(*view, argument, *of);
    require_device(*view, argument, x.q);
    dtype = view->dtype;
  };
  gradient(x.dq, "dq", x.q, p.dq_dtype);
  gradient(x.dk, "dk", x.k, p.dk_dtype);
  gradient(x.dv, "dv", x.v, p.dv_dtype);
  gradient(x.dbias, "dbias", x.parts.bias, p.dbias_dtype);
  gradient(x.dsinks, "dsinks", x.parts.sinks, p.dsinks_dtype);
  return p;
}

ingot_forward_args args_of(ForwardViews& x) {
  ingot_forward_args args;
  ingot_forward_args_init(&args);
  args.q = tensor_of(x.q);
  args.k = tensor_of(x.k);
  args.v = tensor_of(x.v);
  args.o = tensor_of(x.o);
  if (x.lse) args.lse = tensor_of(*x.lse);
  args.parts = part_tensors(x.parts);
  return args;
}

ingot_backward_args args_of(BackwardViews& x) {
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  args.q = tensor_of(x.q);
  args.k = tensor_of(x.k);
  args.v = tensor_of(x.v);
  args.o = tensor_of(x.o);
  args.lse = tensor_of(x.lse);
  args.dout = tensor_of(x.dout);
  if (x.dq) args.dq = tensor_of(*x.dq);
  if (x.dk) args.dk = tensor_of(*x.dk);
  if (x.dv) args.dv = tensor_of(*x.dv);
  args.parts = part_tensors(x.parts);
  if (x.dbias) args.dbias = over_pairs(*x.dbias);
  if (x.dsinks) args.dsinks = over_heads(*x.dsinks);
  return args;
}

/// Points into the views.
template <class Views>
auto prepare(Views& x, const Options& options, const std::string& device, std::uintptr_t stream)
    -> Prepared<decltype(args_of(x))> {
  const ingot_problem p = problem_of(x, options);
  const std::string chosen = chosen_device(x.q, device);
  const double seconds = in_host_memory(x.q) ? seconds_of(p, chosen == "reference") : 0.0;
  auto args = args_of(x);
  args.submission.memory = memory_of(x.q);
  args.submission.stream = reinterpret_cast<void*>(stream);
  return {seconds, plan_for(chosen, p), args};
}

ForwardViews forward_views(Arrays& arrays, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
                           nb::handle lse) {
  return {arrays.view(q, "q", 4),       arrays.view(k, "k", 4),
          arrays.view(v, "v", 4),       arrays.view(o, "o", 4, Access::write),
          arrays.output(lse, "lse", 3), {}};
}

BackwardViews backward_views(Arrays& arrays, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
                             nb::handle lse, nb::handle dout, nb::handle dq, nb::handle dk,
                             nb::handle dv) {
  return {arrays.view(q, "q", 4),
          arrays.view(k, "k", 4),
          arrays.view(v, "v", 4),
          arrays.view(o, "o", 4),
          arrays.view(lse, "lse", 3),
          arrays.view(dout, "dout", 4),
          arrays.output(dq, "dq", 4),
          arrays.output(dk, "dk", 4),
          arrays.output(dv, "dv", 4),
          {},
          std::nullopt,
          std::nullopt};
}

void require_offsets(const ForwardViews& x) {
  require_offsets(x.q, "q");
  require_offsets(x.k, "k");
  require_offsets(x.v, "v");
  require_offsets(x.o, "o");
  if (x.lse) require_offsets(*x.lse, "lse");
}

void require_offsets(const BackwardViews& x) {
  require_offsets(ForwardViews{x.q, x.k, x.v, x.o, x.lse, {}});
  require_offsets(x.dout, "dout");
  if (x.dq) require_offsets(*x.dq, "dq");
  if (x.dk) require_offsets(*x.dk, "dk");
  if (x.dv) require_offsets(*x.dv, "dv");
}

void require_outputs(const ForwardViews& x) {
  require_no_overlap(x.o, "o");
  if (x.lse) require_no_overlap(*x.lse, "lse");
}

void require_outputs(const BackwardViews& x) {
  if (x.dq) require_no_overlap(*x.dq, "dq");
  if (x.dk) require_no_overlap(*x.dk, "dk");
  if (x.dv) require_no_overlap(*x.dv, "dv");
}

ForwardViews part_of(const ForwardViews& x, const Part& part) {
  const auto rows = [&](const auto& view) { return part_of(view, part.entries, part.queries); };
  const auto cols = [&](const auto& view) { return part_of(view, part.entries, part.keys); };
  return {rows(x.q), cols(x.k), cols(x.v), rows(x.o), rows(x.lse), {}};
}

BackwardViews part_of(const BackwardViews& x, const Part& part) {
  const auto rows = [&](const auto& view) { return part_of(view, part.entries, part.queries); };
  const auto cols = [&](const auto& view) { return part_of(view, part.entries, part.keys); };
  return {rows(x.q),  cols(x.k),  cols(x.v),  rows(x.o), rows(x.lse),  rows(x.dout),
          rows(x.dq), cols(x.dk), cols(x.dv), {},        std::nullopt, std::nullopt};
}

/// The parts of a call, once all of it is known to lie within its tensors: what a part says is
/// checked against q and k, so all tensors must agree with these before anything is cut.
template <class Views>
std::vector<Views> parts_of(const Views& x, const std::vector<std::int64_t>& blocks,
                            const Options& options, const std::string& device) {
  const ingot_problem whole = problem_of(x, options);
  require_offsets(x);
  require_outputs(x);
  std::vector<Views> parts;
  for (const Part& part : parts_of(blocks, x.q, x.k)) parts.push_back(part_of(x, part));
  if (parts.empty()) plan_for(chosen_device(x.q, device), whole);  // else each part is looked at
  return parts;
}

/// group: ingot_forward_group or ingot_backward_group.
template <class Views, class F>
void run_parts(const Views& x, const std::vector<std::int64_t>& blocks, const Options& options,
               const std::string& device, std::uintptr_t stream, F&& group) {
  std::vector<Views> parts = parts_of(x, blocks, options, device);
  std::vector<decltype(prepare(parts[0], options, device, stream))> calls;
  for (Views& part : parts) calls.push_back(prepare(part, options, device, stream));
  run_group(std::move(calls), group);
}

}  // namespace

void forward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
             nb::handle parts, const Options& options, const std::string& device,
             std::uintptr_t stream) {
  Arrays arrays;
  ForwardViews x = forward_views(arrays, q, k, v, o, lse);
  x.parts = part_views(arrays, parts);
  run(prepare(x, options, device, stream), ingot_forward);
}

void backward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
              nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv, nb::handle dbias,
              nb::handle dsinks, nb::handle parts, const Options& options,
              const std::string& device, std::uintptr_t stream) {
  Arrays arrays;
  BackwardViews x = backward_views(arrays, q, k, v, o, lse, dout, dq, dk, dv);
  x.parts = part_views(arrays, parts);
  x.dbias = arrays.optional(dbias, "dbias", {2, 4}, Element::number, Access::write);
  x.dsinks = arrays.optional(dsinks, "dsinks", {1, 1}, Element::number, Access::write);
  run(prepare(x, options, device, stream), ingot_backward);
}

void forward_ragged(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                    const std::vector<std::int64_t>& blocks, const Options& options,
                    const std::string& device, std::uintptr_t stream) {
  Arrays arrays;
  const ForwardViews x = forward_views(arrays, q, k, v, o, lse);
  run_parts(x, blocks, options, device, stream, ingot_forward_group);
}

void backward_ragged(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                     nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv,
                     const std::vector<std::int64_t>& blocks, const Options& options,
                     const std::string& device, std::uintptr_t stream) {
  Arrays arrays;
  const BackwardViews x = backward_views(arrays, q, k, v, o, lse, dout, dq, dk, dv);
  run_parts(x, blocks, options, device, stream, ingot_backward_group);
}

std::vector<std::tuple<std::string, std::string>> devices() {
  std::int32_t count = 0;
  check(ingot_device_count(context(), &count));
  std::vector<std::tuple<std::string, std::string>> all;
  for (std::int32_t i = 0; i < count; ++i) {
    ingot_device_info info{};
    check(ingot_device_info_get(context(), i, &info));
    all.emplace_back(info.name, info.description);
  }
  return all;
}

std::string explain(const std::array<std::int64_t, 7>& shape, const std::string& dtype,
                    const Options& options, const std::string& device, bool json) {
  View q, k, v;
  q.shape = {shape[0], shape[1], shape[3], shape[5]};
  k.shape = {shape[0], shape[2], shape[4], shape[5]};
  v.shape = {shape[0], shape[2], shape[4], shape[6]};
  q.dtype = k.dtype = v.dtype = dtype_named(dtype, "dtype");
  const PlanHandle plan = plan_for(device, problem_of(q, k, v, options));
  const ingot_format format = json ? INGOT_JSON : INGOT_TEXT;
  std::size_t needed = 0;
  check(ingot_plan_explain(plan.get(), format, nullptr, 0, &needed));
  std::string text(needed, '\0');
  check(ingot_plan_explain(plan.get(), format, text.data(), text.size(), nullptr));
  text.pop_back();
  return text;
}

}  // namespace ingot_python
