// The C ABI: turns structs into core's aggregates and exceptions into a status and a text. No logic
// of its own.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <string>

#include "core/c_convert.hpp"
#include "core/context.hpp"
#include "core/error.hpp"
#include "core/float_mode.hpp"
#include "core/last_error.hpp"
#include "ingot/ingot.h"

struct ingot_context {
  ingot::Context context;
};

struct ingot_plan {
  ingot::BoundPlan bound;
};

struct ingot_event {
  std::unique_ptr<ingot::Event> event;
};

namespace {

using namespace ingot;

ingot_status record(Code code, const char* message) noexcept {
  set_last_error(message);
  return static_cast<ingot_status>(code);
}

/// Runs f and turns what it throws into a status; the only place where exceptions end.
template <class F>
ingot_status guarded(F&& f) noexcept {
  set_last_error("");
  try {
    const FloatMode mode;
    f();
    return INGOT_OK;
  } catch (const Error& error) {
    return record(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return record(Code::out_of_memory, "out of memory on the host");
  } catch (const std::exception& error) {
    return record(Code::internal, error.what());
  } catch (...) {
    return record(Code::internal, "unknown exception");
  }
}

/// Runs `pass` with the core form of the call's arguments, and hands its event out.
template <class Args, class F>
void submit(const Args& args, F&& pass) {
  auto core_args = to_call(args);
  const ingot_submission& submission = args.submission;
  if (submission.event == nullptr) return pass(core_args);
  auto event = std::make_unique<ingot_event>();
  *submission.event = nullptr;
  core_args.submission.event = &event->event;
  pass(core_args);
  *submission.event = event.release();
}

/// Runs `group` with the plans and the core form of the arguments of `count` calls.
template <class Args, class F>
void submit_group(const ingot_plan* const* plans, const Args* const* args, std::int32_t count,
                  F&& group) {
  if (count < 0) {
    throw Error(Code::invalid_argument,
                "count: must not be negative, got " + std::to_string(count));
  }
  if (count > 0) require(plans, "plans"), require(args, "args");
  std::vector<const BoundPlan*> bound;
  std::vector<decltype(to_call(Args{}))> calls;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::string index = "[" + std::to_string(i) + "]";
    require(plans[i], ("plans" + index).c_str());
    const Args given = checked(args[i], ("args" + index).c_str());
    if (given.submission.event != nullptr) {
      throw Error(Code::invalid_argument,
                  "args" + index + ".submission.event: must be NULL in a group");
    }
    bound.push_back(&plans[i]->bound);
    try {
      calls.push_back(to_call(given));
    } catch (const Error& error) {
      throw Error(error.code(), "args" + index + "." + error.what());
    }
  }
  group(std::span<const BoundPlan* const>(bound),
        std::span<const typename decltype(calls)::value_type>(calls));
}

BoundPlan plan_of(ingot_context* context, const char* device, const ingot_problem* problem) {
  require(context, "context");
  return make_plan(context->context, device == nullptr ? "" : device,
                   to_problem(checked(problem, "problem")));
}

void copy_text(const std::string& text, char* buffer, std::size_t capacity, std::size_t* needed) {
  if (needed != nullptr) *needed = text.size() + 1;
  if (buffer == nullptr && capacity != 0) {
    throw Error(Code::invalid_argument,
                "text: must not be NULL with capacity " + std::to_string(capacity));
  }
  if (capacity == 0) return;
  const std::size_t length = std::min(capacity - 1, text.size());
  std::memcpy(buffer, text.data(), length);
  buffer[length] = '\0';
}

template <std::size_t N>
void copy_name(const std::string& text, char (&buffer)[N]) {
  copy_text(text, buffer, N, nullptr);
}

/// Zero but for struct_size, in the size that the caller has.
template <class T>
void init(T* value, std::size_t size) {
  if (value == nullptr || size < sizeof value->struct_size) return;
  std::memset(static_cast<void*>(value), 0, size);
  value->struct_size = size;
}

/// Bytes that may be written to the caller's structure. 0: it is of version 0.1, when this was not
/// looked at and many callers did not set it.
std::size_t room_of(const ingot_device_info& info) {
  if (info.struct_size == 0) return sizeof info;
  if (info.struct_size < first_size<ingot_device_info>) {
    throw Error(Code::invalid_argument, "info.struct_size: must be at least " +
                                            std::to_string(first_size<ingot_device_info>) +
                                            ", got " + std::to_string(info.struct_size) +
                                            " (use its _init function)");
  }
  return std::min(info.struct_size, sizeof info);
}

void check_pass(ingot_pass pass) {
  if (pass != INGOT_FORWARD && pass != INGOT_BACKWARD) {
    throw Error(Code::invalid_argument,
                "pass: must be an ingot_pass (0 or 1), got " + std::to_string(pass));
  }
}

const PassPlan& pass_of(const ingot_plan* plan, ingot_pass pass) {
  require(plan, "plan");
  check_pass(pass);
  return pass == INGOT_FORWARD ? plan->bound.plan.forward : plan->bound.plan.backward;
}

}  // namespace

extern "C" {

const char* ingot_version(void) {
#define INGOT_STRING_(x) #x
#define INGOT_STRING(x) INGOT_STRING_(x)
  return INGOT_STRING(INGOT_VERSION_MAJOR) "." INGOT_STRING(INGOT_VERSION_MINOR) "." INGOT_STRING(
      INGOT_VERSION_PATCH);
#undef INGOT_STRING
#undef INGOT_STRING_
}

const char* ingot_status_name(ingot_status status) {
  static constexpr const char* names[] = {
      "ok",           "invalid_argument", "unsupported", "out_of_memory", "compile_failed",
      "device_error", "internal",         "cancelled"};
  const auto index = static_cast<std::size_t>(status);
  return index < std::size(names) ? names[index] : "unknown";
}

const char* ingot_last_error(void) { return last_error(); }

void ingot_problem_init_sized(ingot_problem* problem, size_t struct_size) {
  init(problem, struct_size);
  if (problem == nullptr || struct_size < first_size<ingot_problem>) return;
  problem->batch = problem->num_heads = problem->num_heads_kv = 1;
  problem->window_left = problem->window_right = -1;
}

void ingot_forward_args_init_sized(ingot_forward_args* args, size_t struct_size) {
  init(args, struct_size);
}
void ingot_backward_args_init_sized(ingot_backward_args* args, size_t struct_size) {
  init(args, struct_size);
}
void ingot_context_options_init_sized(ingot_context_options* options, size_t struct_size) {
  init(options, struct_size);
}
void ingot_device_info_init_sized(ingot_device_info* info, size_t struct_size) {
  init(info, struct_size);
}

ingot_status ingot_context_create(const ingot_context_options* options, ingot_context** context) {
  return guarded([&] {
    require(context, "context");
    *context = nullptr;
    ContextOptions core_options;
    if (options != nullptr) {
      const ingot_context_options given = checked(options, "options");
      core_options.num_threads = given.num_threads;
      core_options.parallel_region = {given.parallel_region, given.parallel_region_user};
    }
    if (core_options.num_threads < 0 || core_options.num_threads > 4096) {
      throw Error(Code::invalid_argument, "num_threads: must be from 0 to 4096, got " +
                                              std::to_string(core_options.num_threads));
    }
    *context = new ingot_context{Context(core_options)};
  });
}

void ingot_context_destroy(ingot_context* context) { delete context; }

ingot_status ingot_device_count(const ingot_context* context, int32_t* count) {
  return guarded([&] {
    require(context, "context");
    require(count, "count");
    *count = static_cast<int32_t>(context->context.devices().size());
  });
}

ingot_status ingot_device_info_get(const ingot_context* context, int32_t index,
                                   ingot_device_info* info) {
  return guarded([&] {
    require(context, "context");
    require(info, "info");
    const auto& devices = context->context.devices();
    if (index < 0 || static_cast<std::size_t>(index) >= devices.size()) {
      throw Error(Code::invalid_argument, "index: must be from 0 to " +
                                              std::to_string(devices.size() - 1) + ", got " +
                                              std::to_string(index));
    }
    ingot_device_info known{};
    known.struct_size = room_of(*info);
    copy_name(devices[static_cast<std::size_t>(index)]->name(), known.name);
    copy_name(devices[static_cast<std::size_t>(index)]->description(), known.description);
    char* const end = reinterpret_cast<char*>(&known) + known.struct_size;
    if (end > known.description) end[-1] = '\0';
    std::memcpy(info, &known, known.struct_size);
  });
}

ingot_status ingot_plan_create(ingot_context* context, const char* device,
                               const ingot_problem* problem, ingot_plan** plan) {
  return guarded([&] {
    require(plan, "plan");
    *plan = nullptr;
    *plan = new ingot_plan{plan_of(context, device, problem)};
  });
}

void ingot_plan_destroy(ingot_plan* plan) { delete plan; }

ingot_status ingot_plan_workspace_bytes(const ingot_plan* plan, ingot_pass pass, size_t* bytes) {
  return guarded([&] {
    require(bytes, "bytes");
    *bytes = pass_of(plan, pass).workspace_bytes;
  });
}

ingot_status ingot_plan_explain(const ingot_plan* plan, ingot_format format, char* text,
                                size_t capacity, size_t* needed) {
  return guarded([&] {
    require(plan, "plan");
    if (format != INGOT_TEXT && format != INGOT_JSON) {
      throw Error(Code::invalid_argument,
                  "format: must be an ingot_format (0 or 1), got " + std::to_string(format));
    }
    const Plan& core_plan = plan->bound.plan;
    copy_text(format == INGOT_JSON ? explain_json(core_plan) : explain_text(core_plan), text,
              capacity, needed);
  });
}

ingot_status ingot_plan_source(const ingot_plan* plan, ingot_pass pass, char* text, size_t capacity,
                               size_t* needed) {
  return guarded([&] {
    (void)pass_of(plan, pass);
    copy_text(plan->bound.device->source(plan->bound.plan, static_cast<Pass>(pass)), text, capacity,
              needed);
  });
}

ingot_status ingot_forward(const ingot_plan* plan, const ingot_forward_args* args) {
  return guarded([&] {
    require(plan, "plan");
    submit(checked(args, "args"), [&](const ForwardArgs& a) { forward(plan->bound, a); });
  });
}

ingot_status ingot_backward(const ingot_plan* plan, const ingot_backward_args* args) {
  return guarded([&] {
    require(plan, "plan");
    submit(checked(args, "args"), [&](const BackwardArgs& a) { backward(plan->bound, a); });
  });
}

ingot_status ingot_forward_group(const ingot_plan* const* plans,
                                 const ingot_forward_args* const* args, int32_t count) {
  return guarded(
      [&] { submit_group(plans, args, count, [](auto p, auto a) { forward_group(p, a); }); });
}

ingot_status ingot_backward_group(const ingot_plan* const* plans,
                                  const ingot_backward_args* const* args, int32_t count) {
  return guarded(
      [&] { submit_group(plans, args, count, [](auto p, auto a) { backward_group(p, a); }); });
}

ingot_status ingot_event_wait(ingot_event* event, double* gpu_seconds) {
  return guarded([&] {
    require(event, "event");
    if (event->event != nullptr) event->event->wait();
    if (gpu_seconds != nullptr) *gpu_seconds = event->event ? event->event->seconds() : 0.0;
  });
}

ingot_status ingot_event_done(ingot_event* event, int32_t* done) {
  return guarded([&] {
    require(event, "event");
    require(done, "done");
    *done = event->event == nullptr || event->event->done() ? 1 : 0;
  });
}

void ingot_event_destroy(ingot_event* event) {
  if (event == nullptr) return;
  (void)ingot_event_wait(event, nullptr);
  delete event;
}

ingot_status ingot_attention_forward(ingot_context* context, const char* device,
                                     const ingot_problem* problem, const ingot_forward_args* args) {
  return guarded([&] {
    const BoundPlan bound = plan_of(context, device, problem);
    submit(checked(args, "args"), [&](const ForwardArgs& a) { forward(bound, a); });
  });
}

ingot_status ingot_attention_backward(ingot_context* context, const char* device,
                                      const ingot_problem* problem,
                                      const ingot_backward_args* args) {
  return guarded([&] {
    const BoundPlan bound = plan_of(context, device, problem);
    submit(checked(args, "args"), [&](const BackwardArgs& a) { backward(bound, a); });
  });
}

}  // extern "C"
