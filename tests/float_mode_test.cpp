// Bits do not follow the floating-point mode of the calling thread, nor of threads of its own that
// it lends, and the caller has it again afterwards.
#include <gtest/gtest.h>

#include <cfenv>
#include <thread>

#include "conformance.hpp"
#include "devices.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ingot::conformance {
namespace {

enum class Mode { subnormals_are_zero, upward, downward, toward_zero };

/// Sets a mode for good: of a thread of its own, or until CallersMode ends.
void set(Mode mode) {
  switch (mode) {
    case Mode::subnormals_are_zero:
#if defined(__x86_64__)
      _mm_setcsr(_mm_getcsr() | 0x8040);  // FTZ, DAZ
#elif defined(__aarch64__)
      __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t{1} << 24));  // FZ
#endif
      return;
    case Mode::upward:
      std::fesetround(FE_UPWARD);
      return;
    case Mode::downward:
      std::fesetround(FE_DOWNWARD);
      return;
    default:
      std::fesetround(FE_TOWARDZERO);
  }
}

std::uint64_t state() {
#if defined(__x86_64__)
  return _mm_getcsr() & ~0x3FU;  // without the flags
#elif defined(__aarch64__)
  std::uint64_t state = 0;
  __asm__ volatile("mrs %0, fpcr" : "=r"(state));
  return state;
#else
  return static_cast<std::uint64_t>(std::fegetround());
#endif
}

class CallersMode {
 public:
  explicit CallersMode(Mode mode) {
    std::fegetenv(&before_);
    set(mode);
    state_ = state();
  }
  ~CallersMode() { std::fesetenv(&before_); }
  CallersMode(const CallersMode&) = delete;
  CallersMode& operator=(const CallersMode&) = delete;
  bool is_as_it_was() const { return state() == state_; }

 private:
  std::fenv_t before_{};
  std::uint64_t state_ = 0;
};

Mode mode_of_lent_threads = Mode::upward;

void run_on_lent_threads(void*, std::int32_t members, void (*body)(void*), void* argument) {
  std::vector<std::thread> threads;
  for (std::int32_t i = 0; i < members; ++i) {
    threads.emplace_back([=] {
      set(mode_of_lent_threads);
      body(argument);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

ContextHandle context_with(int threads, bool lent) {
  ingot_context_options options;
  ingot_context_options_init(&options);
  options.num_threads = threads;
  if (lent) options.parallel_region = run_on_lent_threads;
  ingot_context* context = nullptr;
  EXPECT_EQ(ingot_context_create(&options, &context), INGOT_OK) << ingot_last_error();
  return ContextHandle(context);
}

/// Values and some of the weights are subnormal; the scale is not a power of two.
void fill_with_small_numbers(const Operands& t, const ingot_problem& p, const Case& c) {
  fill(t, p, c);
  t.v.view.for_each([&](Index b, Index h, Index s, Index d) {
    std::byte* const at = t.v.buffer->at(t.v.view.element(b, h, s, d));
    write_element(at, p.v_dtype, 1e-39 * read_element(at, p.v_dtype));
  });
}

std::vector<std::vector<std::byte>> outputs_of(ingot_context* context, const char* device,
                                               const Case& c) {
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(context, device, c.problem, outcome);
  const Operands t(p, c.layout);
  {
    std::fenv_t here;
    std::fegetenv(&here);
    std::fesetenv(FE_DFL_ENV);
    fill_with_small_numbers(t, p, c);
    std::fesetenv(&here);
  }
  EXPECT_EQ(run(plan.get(), t, false), "") << outcome.message;
  return {t.o.buffer->bytes(), t.lse.buffer->bytes(), t.dq.buffer->bytes(), t.dk.buffer->bytes(),
          t.dv.buffer->bytes()};
}

std::vector<Case> cases_of_every_kernel() {
  Table table(true);
  table.add(Tier::quick, {.heads = 4, .q = 70, .k = 200, .d = 33, .scale = 20});
  table.add(Tier::quick, {.heads = 4, .q = 70, .k = 200, .d = 33, .scale = 0, .softcap = 5});
  table.add(Tier::quick, {.q = 200, .k = 200, .d = 16, .causal = INGOT_CAUSAL_TOP_LEFT});
  table.add(Tier::quick, {.heads = 2, .q = 1, .k = 5000, .d = 33, .in = INGOT_BF16});
  table.add(Tier::quick, {.heads = 2, .q = 40, .k = 60, .d = 16, .in = INGOT_F16});
  return table.take();
}

class FloatModes : public testing::TestWithParam<Mode> {};

TEST_P(FloatModes, OfTheCallerDoNotChangeABit) {
  for (const Case& c : cases_of_every_kernel()) {
    for (const char* device : {"cpu", "reference"}) {
      const auto want = outputs_of(shared_context(), device, c);
      for (const int threads : {1, 3, -3}) {  // negative: lent ones
        mode_of_lent_threads = GetParam();
        const CallersMode mode(GetParam());
        const ContextHandle context = context_with(std::abs(threads), threads < 0);
        const auto got = outputs_of(context.get(), device, c);
        EXPECT_TRUE(got == want) << c.name << " on " << device << ", threads " << threads;
        EXPECT_TRUE(mode.is_as_it_was());
      }
    }
  }
}

std::string mode_name(const testing::TestParamInfo<Mode>& info) {
  const char* const names[] = {"subnormals_are_zero", "upward", "downward", "toward_zero"};
  return names[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(All, FloatModes,
                         testing::Values(Mode::subnormals_are_zero, Mode::upward, Mode::downward,
                                         Mode::toward_zero),
                         mode_name);

}  // namespace
}  // namespace ingot::conformance
