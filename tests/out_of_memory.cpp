// No memory to be had, in every entry point of ingot.h: the n-th request fails, or all from the
// n-th on, for every n there is. The answer is a status with a text, or the right result; never an
// abort.
//
// Exit status 0 passes, 77 skips.
#include <ingot/ingot.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "failing_memory.hpp"

namespace {

int failures = 0;

/// A call, the status that it has with memory enough, and whether its results are right. Neither
/// asks for memory of its own.
struct Attempt {
  std::string name;
  ingot_status expected;
  std::function<ingot_status()> call;
  std::function<bool()> is_right = [] { return true; };
};

void complain(const Attempt& attempt, long n, const char* what, ingot_status status) {
  std::fprintf(stderr, "%s, request %ld%s: %s (status %s, last error \"%s\")\n",
               attempt.name.c_str(), n, all_fail ? " and all after it" : "", what,
               ingot_status_name(status), ingot_last_error());
  ++failures;
}

/// One n; false when the call has no n-th request.
bool attempt_with(const Attempt& attempt, long n) {
  has_failed = false;
  left = n;
  const ingot_status status = attempt.call();
  left = -1;
  if (status == INGOT_OUT_OF_MEMORY) {
    if (ingot_last_error()[0] == '\0') complain(attempt, n, "no text", status);
    if (!has_failed) complain(attempt, n, "there was memory", status);
  } else if (status != attempt.expected) {
    complain(attempt, n, "another status", status);
  } else if (!attempt.is_right()) {
    complain(attempt, n, "a wrong result", status);
  }
  return has_failed;
}

void run(const Attempt& attempt) {
  constexpr long most = 20000;
  for (const bool all : {false, true}) {
    all_fail = all;
    long n = 0;
    while (n < most && attempt_with(attempt, n)) ++n;
    if (n == most) complain(attempt, n, "no end of requests", INGOT_OK);
    if (std::getenv("INGOT_TEST_VERBOSE") != nullptr)
      std::printf("%s: %ld requests\n", attempt.name.c_str(), n);
  }
}

/// A problem with everything that its calls read and write.
struct Case {
  Case(std::int64_t heads, std::int64_t heads_kv, std::int64_t q, std::int64_t k,
       std::int64_t dim) {
    ingot_problem_init(&problem);
    problem.num_heads = heads;
    problem.num_heads_kv = heads_kv;
    problem.seqlen_q = q;
    problem.seqlen_k = k;
    problem.head_dim = problem.head_dim_v = dim;
    ingot_forward_args_init(&forward);
    ingot_backward_args_init(&backward);
    const auto add = [&](std::int64_t h, std::int64_t rows, std::int64_t width) {
      auto& data = memory.emplace_back(static_cast<std::size_t>(h * rows * width));
      for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i % 13) / 16;
      return ingot_tensor{data.data(), {h * rows * width, rows * width, width, 1}};
    };
    memory.reserve(9);
    forward.q = backward.q = add(heads, q, dim);
    forward.k = backward.k = add(heads_kv, k, dim);
    forward.v = backward.v = add(heads_kv, k, dim);
    forward.o = backward.o = add(heads, q, dim);
    forward.lse = backward.lse = add(heads, q, 1);
    backward.dout = add(heads, q, dim);
    backward.dq = add(heads, q, dim);
    backward.dk = add(heads_kv, k, dim);
    backward.dv = add(heads_kv, k, dim);
  }

  /// Forgets the outputs of a pass, or says whether they are what they were at first.
  void spoil(bool of_forward) {
    for (std::size_t i : outputs(of_forward)) std::fill(memory[i].begin(), memory[i].end(), -7.0F);
  }
  bool agrees(bool of_forward) {
    if (expected.empty()) expected = memory;
    for (std::size_t i : outputs(of_forward)) {
      if (memory[i] != expected[i]) return false;
    }
    return true;
  }
  static std::span<const std::size_t> outputs(bool of_forward) {
    static constexpr std::size_t of_pass[] = {3, 4, 6, 7, 8};
    return std::span(of_pass).subspan(of_forward ? 0 : 2, of_forward ? 2 : 3);
  }

  ingot_problem problem;
  ingot_forward_args forward;
  ingot_backward_args backward;
  std::vector<std::vector<float>> memory, expected;
};

ingot_context* make_context(std::int32_t threads) {
  ingot_context_options options;
  ingot_context_options_init(&options);
  options.num_threads = threads;
  ingot_context* context = nullptr;
  if (ingot_context_create(&options, &context) != INGOT_OK) {
    std::fprintf(stderr, "no context: %s\n", ingot_last_error());
    std::exit(EXIT_FAILURE);
  }
  return context;
}

ingot_plan* make_plan(ingot_context* context, const char* device, const ingot_problem& problem) {
  ingot_plan* plan = nullptr;
  if (ingot_plan_create(context, device, &problem, &plan) != INGOT_OK) {
    std::fprintf(stderr, "no plan: %s\n", ingot_last_error());
    std::exit(EXIT_FAILURE);
  }
  return plan;
}

void try_contexts() {
  ingot_context* context = nullptr;
  const auto create = [&](const ingot_context_options* options) {
    const ingot_status status = ingot_context_create(options, &context);
    ingot_context_destroy(context);
    return status;
  };
  run({"ingot_context_create", INGOT_OK, [&] { return create(nullptr); }});
  ingot_context_options wrong;
  ingot_context_options_init(&wrong);
  wrong.num_threads = -1;
  run({"ingot_context_create of -1 threads", INGOT_INVALID_ARGUMENT,
       [&] { return create(&wrong); }});
  run({"ingot_context_create of nothing", INGOT_INVALID_ARGUMENT,
       [] { return ingot_context_create(nullptr, nullptr); }});
  context = make_context(1);
  std::int32_t count = 0;
  run({"ingot_device_count", INGOT_OK, [&] { return ingot_device_count(context, &count); }});
  ingot_device_info info;
  for (std::int32_t i = 0; i <= count; ++i) {
    run({"ingot_device_info_get", i < count ? INGOT_OK : INGOT_INVALID_ARGUMENT,
         [&] { return ingot_device_info_get(context, i, &info); }});
  }
  ingot_context_destroy(context);
}

void try_texts(ingot_context* context, const char* device, const ingot_problem& problem) {
  ingot_plan* const plan = make_plan(context, device, problem);
  const std::string of = std::string(" of ") + device;
  static char text[1 << 20];
  std::string expected;
  const auto is_same = [&] {
    if (expected.empty()) expected = text;
    return expected == text;
  };
  for (const ingot_format format : {INGOT_TEXT, INGOT_JSON}) {
    expected.clear();
    run({"ingot_plan_explain" + of, INGOT_OK,
         [&] { return ingot_plan_explain(plan, format, text, sizeof text, nullptr); }, is_same});
  }
  const bool has_source = std::strchr(device, ':') != nullptr;  // compiled just in time
  for (const ingot_pass pass : {INGOT_FORWARD, INGOT_BACKWARD}) {
    expected.clear();
    run({"ingot_plan_source" + of, has_source ? INGOT_OK : INGOT_UNSUPPORTED,
         [&] { return ingot_plan_source(plan, pass, text, sizeof text, nullptr); }, is_same});
    std::size_t bytes = 0;
    run({"ingot_plan_workspace_bytes" + of, INGOT_OK,
         [&] { return ingot_plan_workspace_bytes(plan, pass, &bytes); }});
  }
  run({"ingot_plan_explain of a wrong format", INGOT_INVALID_ARGUMENT,
       [&] { return ingot_plan_explain(plan, 7, text, sizeof text, nullptr); }});
  ingot_plan_destroy(plan);
}

void try_plans(ingot_context* context) {
  Case c(2, 1, 300, 300, 64);
  for (const char* device : {"cpu", "reference", "metal:m1", "metal:m4-max"}) {
    run({std::string("ingot_plan_create of ") + device, INGOT_OK, [&] {
           ingot_plan* plan = nullptr;
           const ingot_status status = ingot_plan_create(context, device, &c.problem, &plan);
           ingot_plan_destroy(plan);
           return status;
         }});
    try_texts(context, device, c.problem);
  }
  ingot_plan* none = nullptr;
  run({"ingot_plan_create of an unknown device", INGOT_INVALID_ARGUMENT,
       [&] { return ingot_plan_create(context, "npu", &c.problem, &none); }});
  c.problem.head_dim = 5000;
  run({"ingot_plan_create of a wrong problem", INGOT_INVALID_ARGUMENT,
       [&] { return ingot_plan_create(context, "cpu", &c.problem, &none); }});
}

/// Calls of a plan, and the same without one. `context_of` makes what each call finds.
void try_calls(ingot_context* context, const char* device, Case& c) {
  ingot_plan* const plan = make_plan(context, device, c.problem);
  const std::string of = std::string(" of ") + device;
  const auto spoiled = [&](bool of_forward, auto&& call) {
    return [&c, of_forward, call] {
      c.spoil(of_forward);
      return call();
    };
  };
  const auto is_right = [&](bool of_forward) {
    return [&c, of_forward] { return c.agrees(of_forward); };
  };
  if (ingot_forward(plan, &c.forward) != INGOT_OK || ingot_backward(plan, &c.backward) != INGOT_OK)
    ++failures;
  c.expected = c.memory;
  run({"ingot_forward" + of, INGOT_OK,
       spoiled(true, [&] { return ingot_forward(plan, &c.forward); }), is_right(true)});
  run({"ingot_attention_forward" + of, INGOT_OK,
       spoiled(true,
               [&] { return ingot_attention_forward(context, device, &c.problem, &c.forward); }),
       is_right(true)});
  c.memory = c.expected;  // what the backward pass reads
  run({"ingot_backward" + of, INGOT_OK,
       spoiled(false, [&] { return ingot_backward(plan, &c.backward); }), is_right(false)});
  run({"ingot_attention_backward" + of, INGOT_OK,
       spoiled(false,
               [&] { return ingot_attention_backward(context, device, &c.problem, &c.backward); }),
       is_right(false)});
  ingot_plan_destroy(plan);
}

/// A GPU that a fake driver plays: its kernels compute nothing, everything before and after is
/// real.
void try_gpu(ingot_context* context, Case& c) {
  const char* const device = "cuda:0";
  ingot_plan* plan = nullptr;
  if (ingot_plan_create(context, device, &c.problem, &plan) != INGOT_OK) {
    std::printf("skipped: %s\n", ingot_last_error());
    return;
  }
  run({"ingot_plan_create of a GPU", INGOT_OK, [&] {
         ingot_plan* fresh = nullptr;
         const ingot_status status = ingot_plan_create(context, device, &c.problem, &fresh);
         ingot_plan_destroy(fresh);
         return status;
       }});
  run({"ingot_forward on a GPU", INGOT_OK, [&] { return ingot_forward(plan, &c.forward); }});
  run({"ingot_backward on a GPU", INGOT_OK, [&] { return ingot_backward(plan, &c.backward); }});
  ingot_event* event = nullptr;
  run({"ingot_attention_forward on a GPU, with an event", INGOT_OK, [&] {
         ingot_event_destroy(std::exchange(event, nullptr));  // keeps no error of its own
         ingot_forward_args args = c.forward;
         args.submission.event = &event;
         ingot_status status = ingot_attention_forward(context, device, &c.problem, &args);
         if (status == INGOT_OK) status = ingot_event_wait(event, nullptr);
         return status;
       }});
  ingot_event_destroy(event);
  ingot_plan_destroy(plan);
  try_texts(context, device, c.problem);
}

void try_groups(ingot_context* context, Case& c) {
  ingot_plan* const plan = make_plan(context, "cpu", c.problem);
  Case other(2, 1, 33, 40, 32);
  ingot_plan* const second = make_plan(context, "cpu", other.problem);
  const ingot_plan* const plans[] = {plan, second};
  const ingot_forward_args* const forward[] = {&c.forward, &other.forward};
  const ingot_backward_args* const backward[] = {&c.backward, &other.backward};
  run({"ingot_forward_group", INGOT_OK, [&] { return ingot_forward_group(plans, forward, 2); },
       [&] { return c.agrees(true); }});
  run({"ingot_backward_group", INGOT_OK, [&] { return ingot_backward_group(plans, backward, 2); },
       [&] { return c.agrees(false); }});
  const ingot_plan* const wrong[] = {plan, nullptr};
  run({"ingot_forward_group of no plan", INGOT_INVALID_ARGUMENT,
       [&] { return ingot_forward_group(wrong, forward, 2); }});
  run({"ingot_backward_group of -1 calls", INGOT_INVALID_ARGUMENT,
       [&] { return ingot_backward_group(plans, backward, -1); }});
  ingot_plan_destroy(plan);
  ingot_plan_destroy(second);
}

void try_events(ingot_context* context, Case& c) {
  ingot_event* event = nullptr;
  ingot_forward_args args = c.forward;
  args.submission.event = &event;
  std::int32_t done = 0;
  run({"ingot_attention_forward with an event", INGOT_OK, [&] {
         ingot_event_destroy(std::exchange(event, nullptr));
         ingot_status status = ingot_attention_forward(context, "cpu", &c.problem, &args);
         if (status == INGOT_OK) status = ingot_event_done(event, &done);
         if (status == INGOT_OK) status = ingot_event_wait(event, nullptr);
         return status;
       }});
  ingot_event_destroy(event);
  run({"ingot_event_wait of nothing", INGOT_INVALID_ARGUMENT,
       [] { return ingot_event_wait(nullptr, nullptr); }});
  run({"ingot_event_done of nothing", INGOT_INVALID_ARGUMENT,
       [] { return ingot_event_done(nullptr, nullptr); }});
}

/// The first call of a context starts threads, and the first of a thread makes what each thread
/// has.
void try_first_calls(Case& c) {
  run({"the first call of a context", INGOT_OK,
       [&] {
         const long n = left.exchange(-1);
         ingot_context* const context = make_context(4);
         ingot_plan* const plan = make_plan(context, "cpu", c.problem);
         left = n;
         const ingot_status status = ingot_forward(plan, &c.forward);
         const long rest = left.exchange(-1);
         ingot_plan_destroy(plan);
         ingot_context_destroy(context);
         left = rest;
         return status;
       },
       [&] { return c.agrees(true); }});
  run({"the first call of a thread", INGOT_INVALID_ARGUMENT, [&] {
         const long n = left.exchange(-1);
         ingot_status status = INGOT_OK;
         bool has_text = false;
         std::thread([&] {
           left = n;
           const std::int32_t none = 0;
           status = ingot_device_count(nullptr, const_cast<std::int32_t*>(&none));
           left = -1;
           has_text = ingot_last_error()[0] != '\0';
         }).join();
         if (!has_text) ++failures;
         if (status == INGOT_OUT_OF_MEMORY)
           (void)ingot_event_wait(nullptr, nullptr);  // a text here
         return status;
       }});
}

void try_the_rest() {
  ingot_problem problem;
  ingot_forward_args forward;
  ingot_backward_args backward;
  ingot_context_options options;
  run({"what only names and sets", INGOT_OK, [&] {
         ingot_problem_init(&problem);
         ingot_forward_args_init(&forward);
         ingot_backward_args_init(&backward);
         ingot_context_options_init(&options);
         ingot_context_destroy(nullptr);
         ingot_plan_destroy(nullptr);
         ingot_event_destroy(nullptr);
         const bool named = ingot_version() != nullptr && ingot_status_name(3) != nullptr &&
                            ingot_last_error() != nullptr;
         return named ? INGOT_OK : INGOT_INTERNAL;
       }});
}

}  // namespace

int main() {
#if defined(__SANITIZE_THREAD__)
  return 77;  // ThreadSanitizer itself ends a process that has no memory
#endif
  Case plain(4, 2, 160, 200, 64), decode(2, 2, 1, 5000, 64), few(1, 1, 300, 300, 64);
  try_first_calls(plain);
  try_the_rest();
  try_contexts();
  ingot_context* const context = make_context(2);
  try_plans(context);
  for (const char* device : {"cpu", "reference"}) {
    for (Case* c : {&plain, &decode, &few}) try_calls(context, device, *c);
  }
  try_calls(context, "cpu", plain);
  for (Case* c : {&plain, &decode}) try_gpu(context, *c);
  try_groups(context, plain);
  try_events(context, plain);
  ingot_context_destroy(context);
  if (failures != 0) std::fprintf(stderr, "%d failures\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
