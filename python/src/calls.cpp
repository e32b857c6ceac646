#include "calls.hpp"

#include <condition_variable>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "openmp.hpp"
#include "parts.hpp"
#include "shared_context.hpp"

namespace ingot_python {
namespace {

ingot_context* context() {
  ingot_context* handle = nullptr;
  check(shared_context(&handle));
  return handle;
}

struct PlanDeleter {
  void operator()(ingot_plan* plan) const { ingot_plan_destroy(plan); }
};
using PlanHandle = std::shared_ptr<ingot_plan>;

struct CachedPlan {
  ingot_context* context;
  std::string device;
  ingot_problem problem;
  PlanHandle plan;
};

/// The plans used last, latest first; reached with the interpreter's lock.
PlanHandle plan_for(const std::string& device, const ingot_problem& problem) {
  static auto* const plans = new std::list<CachedPlan>;
  constexpr std::size_t capacity = 64;
  ingot_context* const current = context();
  for (auto entry = plans->begin(); entry != plans->end(); ++entry) {
    if (std::memcmp(&entry->problem, &problem, sizeof problem) == 0 && entry->context == current &&
        entry->device == device) {
      if (entry != plans->begin()) plans->splice(plans->begin(), *plans, entry);
      return plans->front().plan;
    }
  }
  ingot_plan* made = nullptr;
  check(ingot_plan_create(current, device.c_str(), &problem, &made));
  plans->push_front({current, device, problem, PlanHandle(made, PlanDeleter{})});
  if (plans->size() > capacity) plans->pop_back();
  return plans->front().plan;
}

void require_shape(const View& view, const char* argument, std::size_t rank,
                   const std::array<std::int64_t, 4>& shape) {
  if (view.shape != shape) {
    invalid(std::string(argument) + ".shape: must be " + shape_text(shape, rank) + ", got " +
            shape_text(view.shape, rank));
  }
}

void require_dtype(const View& view, const char* argument, ingot_dtype dtype, const char* rule) {
  if (view.dtype != dtype) invalid(std::string(argument) + ".dtype: must be " + rule);
}

void require_device(const View& view, const char* argument, const View& q) {
  if (view.device_type != q.device_type || view.device_id != q.device_id) {
    invalid(std::string(argument) + ": must be on the device of q, got DLPack device (" +
            std::to_string(view.device_type) + ", " + std::to_string(view.device_id) + ")");
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

/// Points into `view` where it is a slice, so `view` must outlive the call.
ingot_tensor tensor_of(View& view) {
  ingot_tensor tensor = view.tensor;
  if (view.slice.buffer != nullptr) tensor.data = &view.slice;
  return tensor;
}

/// All tensors of a call are on the device of q, so all are slices or none is.
ingot_memory memory_of(const View& q) {
  return q.slice.buffer != nullptr ? INGOT_MEMORY_METAL_SLICE : INGOT_MEMORY_ADDRESS;
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
  p.scale = static_cast<float>(options.scale);
  p.softcap = static_cast<float>(options.softcap);
  p.precision = options.precision;
  p.workspace_limit = options.workspace_limit;
  require_shape(k, "k", 4, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim});
  require_shape(v, "v", 4, {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v});
  require_device(k, "k", q);
  require_device(v, "v", q);
  return p;
}

double multiply_adds(const ingot_problem& p) {
  return static_cast<double>(p.batch * p.num_heads) * static_cast<double>(p.seqlen_q) *
         static_cast<double>(p.seqlen_k) * static_cast<double>(p.head_dim + p.head_dim_v);
}

/// A call of some length runs on a thread of its own, so that this one can look for Ctrl-C; the
/// library is then asked to end early. Must be called with the interpreter's lock.
template <class F>
void run_interruptible(std::int32_t& cancel, F&& f) {
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  ingot_status status = INGOT_OK;
  std::string text;
  const int threads = openmp_threads();
  std::thread worker([&] {
    const OpenmpThreads same(threads);
    const ingot_status result = f();
    const std::lock_guard lock(mutex);
    status = result;
    if (result != INGOT_OK) text = ingot_last_error();
    done = true;
    ended.notify_one();
  });
  bool interrupted = false;
  const auto wait = [&] {
    const nb::gil_scoped_release unlocked;
    std::unique_lock lock(mutex);
    return ended.wait_for(lock, std::chrono::milliseconds(50), [&] { return done; });
  };
  while (!wait()) {
    if (!interrupted && PyErr_CheckSignals() != 0) {
      interrupted = true;
      __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
    }
  }
  worker.join();
  if (interrupted) throw nb::python_error();
  if (status != INGOT_OK) raise(status, text);
}

/// A pass that is ready: its views must outlive it, for args may point into them.
template <class Args>
struct Prepared {
  double multiply_adds = 0;
  bool on_cpu = false;
  PlanHandle plan;
  Args args;
};

constexpr double long_call = 5e9;  ///< multiply-adds: tenths of a second

template <class F>
void finish(bool is_long, std::int32_t& cancel, F&& call) {
  if (is_long) return run_interruptible(cancel, call);
  ingot_status status = INGOT_OK;
  {
    const nb::gil_scoped_release unlocked;
    status = call();
  }
  check(status);
}

/// pass: ingot_forward or ingot_backward.
template <class Args, class F>
void run(Prepared<Args> call, F&& pass) {
  std::int32_t cancel = 0;
  const bool is_long = call.on_cpu && call.multiply_adds > long_call;
  if (is_long) call.args.submission.cancel = &cancel;
  finish(is_long, cancel, [&] { return pass(call.plan.get(), &call.args); });
}

/// group: ingot_forward_group or ingot_backward_group.
template <class Args, class F>
void run_group(std::vector<Prepared<Args>> calls, F&& group) {
  std::int32_t cancel = 0;
  double sum = 0;
  std::vector<const ingot_plan*> plans;
  std::vector<const Args*> args;
  for (const Prepared<Args>& call : calls) {
    sum += call.on_cpu ? call.multiply_adds : 0;
    plans.push_back(call.plan.get());
    args.push_back(&call.args);
  }
  const bool is_long = sum > long_call;
  if (is_long) {
    for (Prepared<Args>& call : calls) call.args.submission.cancel = &cancel;
  }
  finish(is_long, cancel,
         [&] { return group(plans.data(), args.data(), static_cast<std::int32_t>(calls.size())); });
}

}  // namespace

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
};

struct BackwardViews {
  View q, k, v, o, lse, dout;
  std::optional<View> dq, dk, dv;
};

std::optional<View> optional_view(nb::handle array, const char* argument, std::size_t rank) {
  if (array.is_none()) return std::nullopt;
  return view_of(array, argument, rank, Access::write);
}

Prepared<ingot_forward_args> prepare(ForwardViews& x, const Options& options,
                                     const std::string& device, std::uintptr_t stream) {
  ingot_problem p = problem_of(x.q, x.k, x.v, options);
  require_shape(x.o, "o", 4, {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v});
  require_device(x.o, "o", x.q);
  p.o_dtype = x.o.dtype;
  ingot_forward_args args;
  ingot_forward_args_init(&args);
  args.q = tensor_of(x.q);
  args.k = tensor_of(x.k);
  args.v = tensor_of(x.v);
  args.o = tensor_of(x.o);
  if (x.lse) {
    require_shape(*x.lse, "lse", 3, {p.batch, p.num_heads, p.seqlen_q, 0});
    require_dtype(*x.lse, "lse", INGOT_F32, "float32");
    require_device(*x.lse, "lse", x.q);
    args.lse = tensor_of(*x.lse);
  }
  args.submission.memory = memory_of(x.q);
  args.submission.stream = reinterpret_cast<void*>(stream);
  return {multiply_adds(p), in_host_memory(x.q), plan_for(chosen_device(x.q, device), p), args};
}

Prepared<ingot_backward_args> prepare(BackwardViews& x, const Options& options,
                                      const std::string& device, std::uintptr_t stream) {
  ingot_problem p = problem_of(x.q, x.k, x.v, options);
  const std::array<std::int64_t, 4> out{p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
  require_shape(x.o, "o", 4, out);
  require_shape(x.lse, "lse", 3, {p.batch, p.num_heads, p.seqlen_q, 0});
  require_dtype(x.lse, "lse", INGOT_F32, "float32");
  require_shape(x.dout, "dout", 4, out);
  require_device(x.o, "o", x.q);
  require_device(x.lse, "lse", x.q);
  require_device(x.dout, "dout", x.q);
  p.o_dtype = x.o.dtype;
  p.dout_dtype = x.dout.dtype;
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  args.q = tensor_of(x.q);
  args.k = tensor_of(x.k);
  args.v = tensor_of(x.v);
  args.o = tensor_of(x.o);
  args.lse = tensor_of(x.lse);
  args.dout = tensor_of(x.dout);
  const auto gradient = [&](std::optional<View>& view, const char* argument, const View& of,
                            ingot_tensor& tensor, ingot_dtype& dtype) {
    if (!view) return;
    require_shape(*view, argument, 4, of.shape);
    require_device(*view, argument, x.q);
    tensor = tensor_of(*view);
    dtype = view->dtype;
  };
  gradient(x.dq, "dq", x.q, args.dq, p.dq_dtype);
  gradient(x.dk, "dk", x.k, args.dk, p.dk_dtype);
  gradient(x.dv, "dv", x.v, args.dv, p.dv_dtype);
  args.submission.memory = memory_of(x.q);
  args.submission.stream = reinterpret_cast<void*>(stream);
  return {multiply_adds(p), in_host_memory(x.q), plan_for(chosen_device(x.q, device), p), args};
}

ForwardViews forward_views(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse) {
  return {view_of(q, "q", 4), view_of(k, "k", 4), view_of(v, "v", 4),
          view_of(o, "o", 4, Access::write), optional_view(lse, "lse", 3)};
}

BackwardViews backward_views(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                             nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv) {
  return {view_of(q, "q", 4),         view_of(k, "k", 4),         view_of(v, "v", 4),
          view_of(o, "o", 4),         view_of(lse, "lse", 3),     view_of(dout, "dout", 4),
          optional_view(dq, "dq", 4), optional_view(dk, "dk", 4), optional_view(dv, "dv", 4)};
}

}  // namespace

void forward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
             const Options& options, const std::string& device, std::uintptr_t stream) {
  ForwardViews x = forward_views(q, k, v, o, lse);
  run(prepare(x, options, device, stream), ingot_forward);
}

void backward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
              nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv, const Options& options,
              const std::string& device, std::uintptr_t stream) {
  BackwardViews x = backward_views(q, k, v, o, lse, dout, dq, dk, dv);
  run(prepare(x, options, device, stream), ingot_backward);
}

void forward_ragged(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                    const std::vector<std::int64_t>& blocks, const Options& options,
                    const std::string& device, std::uintptr_t stream) {
  const ForwardViews x = forward_views(q, k, v, o, lse);
  std::vector<ForwardViews> parts;
  for (const Part& part : parts_of(blocks, x.q, x.k)) {
    const auto rows = [&](const auto& view) { return part_of(view, part.entries, part.queries); };
    const auto cols = [&](const auto& view) { return part_of(view, part.entries, part.keys); };
    parts.push_back({rows(x.q), cols(x.k), cols(x.v), rows(x.o), rows(x.lse)});
  }
  std::vector<Prepared<ingot_forward_args>> calls;
  for (ForwardViews& part : parts) calls.push_back(prepare(part, options, device, stream));
  run_group(std::move(calls), ingot_forward_group);
}

void backward_ragged(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                     nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv,
                     const std::vector<std::int64_t>& blocks, const Options& options,
                     const std::string& device, std::uintptr_t stream) {
  const BackwardViews x = backward_views(q, k, v, o, lse, dout, dq, dk, dv);
  std::vector<BackwardViews> parts;
  for (const Part& part : parts_of(blocks, x.q, x.k)) {
    const auto rows = [&](const auto& view) { return part_of(view, part.entries, part.queries); };
    const auto cols = [&](const auto& view) { return part_of(view, part.entries, part.keys); };
    parts.push_back({rows(x.q), cols(x.k), cols(x.v), rows(x.o), rows(x.lse), rows(x.dout),
                     rows(x.dq), cols(x.dk), cols(x.dv)});
  }
  std::vector<Prepared<ingot_backward_args>> calls;
  for (BackwardViews& part : parts) calls.push_back(prepare(part, options, device, stream));
  run_group(std::move(calls), ingot_backward_group);
}

std::vector<std::tuple<std::string, std::string>> devices() {
  std::int32_t count = 0;
  check(ingot_device_count(context(), &count));
  std::vector<std::tuple<std::string, std::string>> all;
  for (std::int32_t i = 0; i < count; ++i) {
    ingot_device_info info;
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
