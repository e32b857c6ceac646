#include "calls.hpp"

#include <condition_variable>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "errors.hpp"
#include "openmp.hpp"
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

template <class Args, class F>
void run(const ingot_problem& p, Args& args, bool on_cpu, F&& call) {
  constexpr double long_call = 5e9;  // multiply-adds: tenths of a second
  std::int32_t cancel = 0;
  if (on_cpu && multiply_adds(p) > long_call) {
    args.submission.cancel = &cancel;
    return run_interruptible(cancel, [&] { return call(); });
  }
  ingot_status status = INGOT_OK;
  {
    const nb::gil_scoped_release unlocked;
    status = call();
  }
  check(status);
}

}  // namespace

std::string device_of(const View& view) {
  if (in_host_memory(view)) return view.dtype == INGOT_F64 ? "reference" : "cpu";
  if (view.device_type == device_cuda) return "cuda:" + std::to_string(view.device_id);
  if (view.device_type == device_metal) return "metal:" + std::to_string(view.device_id);
  invalid("q: must be in the memory of a CPU, CUDA or Metal device, got DLPack device type " +
          std::to_string(view.device_type));
}

void forward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
             const Options& options, const std::string& device, std::uintptr_t stream) {
  View views[] = {view_of(q, "q", 4), view_of(k, "k", 4), view_of(v, "v", 4),
                  view_of(o, "o", 4, Access::write)};
  ingot_problem p = problem_of(views[0], views[1], views[2], options);
  require_shape(views[3], "o", 4, {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v});
  require_device(views[3], "o", views[0]);
  p.o_dtype = views[3].dtype;
  ingot_forward_args args;
  ingot_forward_args_init(&args);
  args.q = tensor_of(views[0]);
  args.k = tensor_of(views[1]);
  args.v = tensor_of(views[2]);
  args.o = tensor_of(views[3]);
  View lse_view;
  if (!lse.is_none()) {
    lse_view = view_of(lse, "lse", 3, Access::write);
    require_shape(lse_view, "lse", 3, {p.batch, p.num_heads, p.seqlen_q, 0});
    require_dtype(lse_view, "lse", INGOT_F32, "float32");
    require_device(lse_view, "lse", views[0]);
    args.lse = tensor_of(lse_view);
  }
  args.submission.memory = memory_of(views[0]);
  args.submission.stream = reinterpret_cast<void*>(stream);
  const PlanHandle plan = plan_for(chosen_device(views[0], device), p);
  run(p, args, in_host_memory(views[0]), [&] { return ingot_forward(plan.get(), &args); });
}

void backward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
              nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv, const Options& options,
              const std::string& device, std::uintptr_t stream) {
  View views[] = {view_of(q, "q", 4), view_of(k, "k", 4),     view_of(v, "v", 4),
                  view_of(o, "o", 4), view_of(lse, "lse", 3), view_of(dout, "dout", 4)};
  ingot_problem p = problem_of(views[0], views[1], views[2], options);
  const std::array<std::int64_t, 4> out{p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
  require_shape(views[3], "o", 4, out);
  require_shape(views[4], "lse", 3, {p.batch, p.num_heads, p.seqlen_q, 0});
  require_dtype(views[4], "lse", INGOT_F32, "float32");
  require_shape(views[5], "dout", 4, out);
  require_device(views[3], "o", views[0]);
  require_device(views[4], "lse", views[0]);
  require_device(views[5], "dout", views[0]);
  p.o_dtype = views[3].dtype;
  p.dout_dtype = views[5].dtype;
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  ingot_tensor* const inputs[] = {&args.q, &args.k, &args.v, &args.o, &args.lse, &args.dout};
  for (std::size_t i = 0; i < 6; ++i) *inputs[i] = tensor_of(views[i]);
  View outputs[3];
  const auto gradient = [&](nb::handle array, const char* argument, std::size_t index,
                            ingot_tensor& tensor, ingot_dtype& dtype) {
    if (array.is_none()) return;
    View& view = outputs[index] = view_of(array, argument, 4, Access::write);
    require_shape(view, argument, 4, views[index].shape);
    require_device(view, argument, views[0]);
    tensor = tensor_of(view);
    dtype = view.dtype;
  };
  gradient(dq, "dq", 0, args.dq, p.dq_dtype);
  gradient(dk, "dk", 1, args.dk, p.dk_dtype);
  gradient(dv, "dv", 2, args.dv, p.dv_dtype);
  args.submission.memory = memory_of(views[0]);
  args.submission.stream = reinterpret_cast<void*>(stream);
  const PlanHandle plan = plan_for(chosen_device(views[0], device), p);
  run(p, args, in_host_memory(views[0]), [&] { return ingot_backward(plan.get(), &args); });
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
