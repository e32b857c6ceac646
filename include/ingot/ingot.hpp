// ingot: exact attention (FlashAttention), forward and backward. A C++20 face over ingot.h: RAII,
// spans, exceptions. Header only and without logic of its own; ingot.h documents every field, rule
// and error.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ingot/ingot.h"

namespace ingot {
inline namespace v0 {

/// Thrown by everything here. what() is one line that names the argument, the rule and the value.
class Error : public std::runtime_error {
 public:
  Error(ingot_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  ingot_status status() const noexcept { return status_; }

 private:
  ingot_status status_;
};

namespace detail {
inline void check(ingot_status status) {
  if (status != INGOT_OK) throw Error(status, ingot_last_error());
}
}  // namespace detail

enum class Dtype : std::int32_t {
  automatic = INGOT_DTYPE_DEFAULT,  ///< as ingot_problem says for each tensor
  f32 = INGOT_F32,
  f16 = INGOT_F16,
  bf16 = INGOT_BF16,
  f64 = INGOT_F64,  ///< device "reference" only
};

enum class Causal : std::int32_t {
  none = INGOT_CAUSAL_NONE,
  top_left = INGOT_CAUSAL_TOP_LEFT,
  bottom_right = INGOT_CAUSAL_BOTTOM_RIGHT,
};

enum class Precision : std::int32_t {
  highest = INGOT_PRECISION_HIGHEST,
  high = INGOT_PRECISION_HIGH,
};

/// What to compute; see ingot_problem. Use designated initialisers.
struct Problem {
  std::int64_t batch = 1, num_heads = 1, num_heads_kv = 1;
  std::int64_t seqlen_q = 0, seqlen_k = 0, head_dim = 0, head_dim_v = 0;
  Dtype q_dtype = Dtype::automatic, k_dtype = Dtype::automatic, v_dtype = Dtype::automatic;
  Dtype o_dtype = Dtype::automatic, dout_dtype = Dtype::automatic;
  Dtype dq_dtype = Dtype::automatic, dk_dtype = Dtype::automatic, dv_dtype = Dtype::automatic;
  Causal causal = Causal::none;
  std::int64_t window_left = -1, window_right = -1;
  float scale = 0.0F;    ///< 0: 1 / sqrt(head_dim)
  float softcap = 0.0F;  ///< 0: off
  Precision precision = Precision::highest;
  std::int64_t workspace_limit = 0;  ///< bytes; 0: 1.25 GiB
  // Parts with tensors of their own (PartTensors), all off by default.
  bool alibi = false, mask = false, prefix = false;
  Dtype bias_dtype = Dtype::automatic;   ///< automatic: no bias
  Dtype dbias_dtype = Dtype::automatic;  ///< as bias_dtype
  std::array<std::int64_t, 4> bias_shape{};
  Dtype sinks_dtype = Dtype::automatic;   ///< automatic: no sinks
  Dtype dsinks_dtype = Dtype::automatic;  ///< as sinks_dtype
  float dropout = 0.0F;
};

/// Inputs of the parts that a problem turns on; see ingot_part_tensors.
using PartTensors = ingot_part_tensors;

/// A strided view; strides in elements of [batch, head, seqlen, head_dim]. Inputs are never written
/// through it.
using Tensor = ingot_tensor;

/// View of memory that is contiguous in the order [batch, head, seqlen, head_dim].
inline Tensor bhsd(const void* data, std::int64_t heads, std::int64_t seqlen, std::int64_t dim) {
  return {const_cast<void*>(data), {heads * seqlen * dim, seqlen * dim, dim, 1}};
}

/// View of memory that is contiguous in the order [batch, seqlen, head, head_dim].
inline Tensor bshd(const void* data, std::int64_t heads, std::int64_t seqlen, std::int64_t dim) {
  return {const_cast<void*>(data), {seqlen * heads * dim, dim, heads * dim, 1}};
}

/// Where a call runs, who waits, and what ends it early; see ingot_submission. All zero is the
/// simple case: the results are there on return.
using Submission = ingot_submission;

/// The end of a call that does not wait: plan.forward({..., .submission = {.event = event.out()}}).
/// Waits when destroyed.
class Event {
 public:
  Event() = default;
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Event() { ingot_event_destroy(handle_); }

  /// Where the call puts its event. Waits for one that is there already.
  ingot_event** out() {
    ingot_event_destroy(std::exchange(handle_, nullptr));
    return &handle_;
  }
  ingot_event* get() const noexcept { return handle_; }

  /// Throws what went wrong in the call. Returns its seconds on the device, 0 where that has no
  /// clock.
  double wait() const {
    double seconds = 0;
    detail::check(ingot_event_wait(handle_, &seconds));
    return seconds;
  }

  /// Looks, without waiting.
  bool done() const {
    std::int32_t done = 0;
    detail::check(ingot_event_done(handle_, &done));
    return done != 0;
  }

 private:
  ingot_event* handle_ = nullptr;
};

struct ForwardArgs {
  Tensor q{}, k{}, v{}, o{};
  Tensor lse{};                      ///< f32; data null: not wanted
  std::span<std::byte> workspace{};  ///< 64-byte aligned; empty: ingot's own
  Submission submission{};
  PartTensors parts{};
};

struct BackwardArgs {
  Tensor q{}, k{}, v{}, o{}, lse{}, dout{};
  Tensor dq{}, dk{}, dv{};  ///< data null: not wanted
  std::span<std::byte> workspace{};
  Submission submission{};
  PartTensors parts{};       ///< as the forward pass had them
  Tensor dbias{}, dsinks{};  ///< data null: not wanted
};

namespace detail {
inline ingot_forward_args to_c(const ForwardArgs& args) {
  ingot_forward_args c;
  ingot_forward_args_init(&c);
  c.q = args.q;
  c.k = args.k;
  c.v = args.v;
  c.o = args.o;
  c.lse = args.lse;
  c.workspace = args.workspace.data();
  c.workspace_bytes = args.workspace.size();
  c.submission = args.submission;
  c.parts = args.parts;
  return c;
}

inline ingot_backward_args to_c(const BackwardArgs& args) {
  ingot_backward_args c;
  ingot_backward_args_init(&c);
  c.q = args.q;
  c.k = args.k;
  c.v = args.v;
  c.o = args.o;
  c.lse = args.lse;
  c.dout = args.dout;
  c.dq = args.dq;
  c.dk = args.dk;
  c.dv = args.dv;
  c.workspace = args.workspace.data();
  c.workspace_bytes = args.workspace.size();
  c.submission = args.submission;
  c.parts = args.parts;
  c.dbias = args.dbias;
  c.dsinks = args.dsinks;
  return c;
}
}  // namespace detail

struct DeviceInfo {
  std::string name, description;
};

/// The devices of this machine and the threads of its CPU device. Safe to use from several threads.
class Context {
 public:
  /// num_threads of the CPU device, the caller's own included; 0: all this process may use.
  explicit Context(int num_threads = 0) {
    ingot_context_options options;
    ingot_context_options_init(&options);
    options.num_threads = num_threads;
    detail::check(ingot_context_create(&options, &handle_));
  }
  /// For what else can be chosen: threads of the program's own.
  explicit Context(const ingot_context_options& options) {
    detail::check(ingot_context_create(&options, &handle_));
  }
  Context(Context&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Context& operator=(Context&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Context() { ingot_context_destroy(handle_); }

  ingot_context* get() const noexcept { return handle_; }

  /// Preferred first; device "auto" is the first.
  std::vector<DeviceInfo> devices() const {
    std::int32_t count = 0;
    detail::check(ingot_device_count(handle_, &count));
    std::vector<DeviceInfo> all;
    for (std::int32_t i = 0; i < count; ++i) {
      ingot_device_info info;
      ingot_device_info_init(&info);
      detail::check(ingot_device_info_get(handle_, i, &info));
      all.push_back({info.name, info.description});
    }
    return all;
  }

 private:
  ingot_context* handle_ = nullptr;
};

/// One problem, prepared for one device. Immutable; make it once, run it many times, from any
/// thread. The context must outlive it.
class Plan {
 public:
  Plan(const Context& context, const Problem& problem, const std::string& device = "auto") {
    const ingot_problem c = to_c(problem);
    detail::check(ingot_plan_create(context.get(), device.c_str(), &c, &handle_));
  }
  Plan(Plan&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Plan& operator=(Plan&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Plan() { ingot_plan_destroy(handle_); }

  ingot_plan* get() const noexcept { return handle_; }

  /// O = softmax(score(Q K^T) + mask) V.
  void forward(const ForwardArgs& args) const {
    const ingot_forward_args c = detail::to_c(args);
    detail::check(ingot_forward(handle_, &c));
  }

  /// dQ, dK and dV from dO, with o and lse of the forward pass.
  void backward(const BackwardArgs& args) const {
    const ingot_backward_args c = detail::to_c(args);
    detail::check(ingot_backward(handle_, &c));
  }

  std::size_t workspace_bytes(ingot_pass pass) const {
    std::size_t bytes = 0;
    detail::check(ingot_plan_workspace_bytes(handle_, pass, &bytes));
    return bytes;
  }

  /// Which kernel runs, its blocks and memory, and why.
  std::string explain(ingot_format format = INGOT_TEXT) const {
    return text([&](char* buffer, std::size_t capacity, std::size_t* needed) {
      return ingot_plan_explain(handle_, format, buffer, capacity, needed);
    });
  }

  /// The text of a just-in-time kernel; throws where kernels are compiled ahead of time.
  std::string source(ingot_pass pass) const {
    return text([&](char* buffer, std::size_t capacity, std::size_t* needed) {
      return ingot_plan_source(handle_, pass, buffer, capacity, needed);
    });
  }

 private:
  template <class Call>
  static std::string text(Call&& call) {
    std::size_t needed = 0;
    detail::check(call(nullptr, 0, &needed));
    std::string result(needed, '\0');
    detail::check(call(result.data(), result.size(), &needed));
    result.resize(needed - 1);
    return result;
  }

  static ingot_problem to_c(const Problem& p) {
    ingot_problem c;
    ingot_problem_init(&c);
    c.batch = p.batch;
    c.num_heads = p.num_heads;
    c.num_heads_kv = p.num_heads_kv;
    c.seqlen_q = p.seqlen_q;
    c.seqlen_k = p.seqlen_k;
    c.head_dim = p.head_dim;
    c.head_dim_v = p.head_dim_v;
    c.q_dtype = static_cast<ingot_dtype>(p.q_dtype);
    c.k_dtype = static_cast<ingot_dtype>(p.k_dtype);
    c.v_dtype = static_cast<ingot_dtype>(p.v_dtype);
    c.o_dtype = static_cast<ingot_dtype>(p.o_dtype);
    c.dout_dtype = static_cast<ingot_dtype>(p.dout_dtype);
    c.dq_dtype = static_cast<ingot_dtype>(p.dq_dtype);
    c.dk_dtype = static_cast<ingot_dtype>(p.dk_dtype);
    c.dv_dtype = static_cast<ingot_dtype>(p.dv_dtype);
    c.causal = static_cast<ingot_causal>(p.causal);
    c.window_left = p.window_left;
    c.window_right = p.window_right;
    c.scale = p.scale;
    c.softcap = p.softcap;
    c.precision = static_cast<ingot_precision>(p.precision);
    c.workspace_limit = p.workspace_limit;
    c.alibi = p.alibi ? 1 : 0;
    c.mask = p.mask ? 1 : 0;
    c.prefix = p.prefix ? 1 : 0;
    c.bias_dtype = static_cast<ingot_dtype>(p.bias_dtype);
    c.dbias_dtype = static_cast<ingot_dtype>(p.dbias_dtype);
    std::copy(p.bias_shape.begin(), p.bias_shape.end(), c.bias_shape);
    c.sinks_dtype = static_cast<ingot_dtype>(p.sinks_dtype);
    c.dsinks_dtype = static_cast<ingot_dtype>(p.dsinks_dtype);
    c.dropout = p.dropout;
    return c;
  }

  ingot_plan* handle_ = nullptr;
};

namespace detail {
template <class Plan, class CArgs, class Args, class Group>
void run_group(std::span<const Plan* const> plans, std::span<const Args> args, Group&& group) {
  if (plans.size() != args.size()) {
    throw Error(INGOT_INVALID_ARGUMENT, "args: must be one for each of the " +
                                            std::to_string(plans.size()) + " plans, got " +
                                            std::to_string(args.size()));
  }
  std::vector<const ingot_plan*> handles;
  std::vector<CArgs> values;
  std::vector<const CArgs*> pointers;
  for (const Plan* plan : plans) handles.push_back(plan->get());
  for (const Args& each : args) values.push_back(to_c(each));
  for (const CArgs& value : values) pointers.push_back(&value);
  check(group(handles.data(), pointers.data(), static_cast<std::int32_t>(plans.size())));
}
}  // namespace detail

/// The i-th plan with the i-th arguments, as ingot_forward_group says.
inline void forward_group(std::span<const Plan* const> plans, std::span<const ForwardArgs> args) {
  detail::run_group<Plan, ingot_forward_args>(plans, args, ingot_forward_group);
}
inline void backward_group(std::span<const Plan* const> plans, std::span<const BackwardArgs> args) {
  detail::run_group<Plan, ingot_backward_args>(plans, args, ingot_backward_group);
}

/// Forward on device "auto" for float memory contiguous in [batch, head, seqlen, head_dim]. Throws
/// where a span is smaller than the problem says.
inline void attention(const Context& context, const Problem& p, std::span<const float> q,
                      std::span<const float> k, std::span<const float> v, std::span<float> o) {
  const Plan plan(context, p);  // checks the sizes, so that their products below are safe
  const auto require = [](const char* name, std::size_t have, std::int64_t need) {
    if (have < static_cast<std::size_t>(need)) {
      throw Error(INGOT_INVALID_ARGUMENT, std::string(name) + ": must have " +
                                              std::to_string(need) + " elements, got " +
                                              std::to_string(have));
    }
  };
  require("q", q.size(), p.batch * p.num_heads * p.seqlen_q * p.head_dim);
  require("k", k.size(), p.batch * p.num_heads_kv * p.seqlen_k * p.head_dim);
  require("v", v.size(), p.batch * p.num_heads_kv * p.seqlen_k * p.head_dim_v);
  require("o", o.size(), p.batch * p.num_heads * p.seqlen_q * p.head_dim_v);
  for (const Dtype dtype : {p.q_dtype, p.k_dtype, p.v_dtype, p.o_dtype}) {
    if (dtype != Dtype::automatic && dtype != Dtype::f32) {
      throw Error(INGOT_INVALID_ARGUMENT, "problem: dtypes must be f32 for spans of float, got " +
                                              std::to_string(static_cast<int>(dtype)));
    }
  }
  plan.forward({.q = bhsd(q.data(), p.num_heads, p.seqlen_q, p.head_dim),
                .k = bhsd(k.data(), p.num_heads_kv, p.seqlen_k, p.head_dim),
                .v = bhsd(v.data(), p.num_heads_kv, p.seqlen_k, p.head_dim_v),
                .o = bhsd(o.data(), p.num_heads, p.seqlen_q, p.head_dim_v)});
}

}  // namespace v0
}  // namespace ingot
