// What has no element is no work, however many heads and batch entries it is said of: every call
// here returns at once. And how soon a call that is long ends when it is asked to.
#include <gtest/gtest.h>
#include <ingot/ingot.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "devices.hpp"

namespace ingot::conformance {
namespace {

constexpr std::int64_t huge = std::int64_t{1} << 40;

/// A problem whose inputs are a few numbers, read again and again by strides of 0.
struct Shared {
  explicit Shared(const ingot_problem& p) : problem(p) {
    ingot_forward_args_init(&forward);
    ingot_backward_args_init(&backward);
    const ingot_tensor in = {numbers.data(), {0, 0, 0, 1}};
    forward.q = forward.k = forward.v = in;
    backward.q = backward.k = backward.v = backward.o = backward.dout = backward.lse = in;
  }

  ingot_tensor output(std::int64_t heads, std::int64_t rows, std::int64_t dim) {
    auto& data = outputs.emplace_back(static_cast<std::size_t>(heads * rows * dim), -7.0F);
    return {data.data(), {heads * rows * dim, rows * dim, dim, 1}};
  }
  /// For an output without elements: some address.
  ingot_tensor nothing() { return output(1, 1, 1); }

  ingot_problem problem;
  ingot_forward_args forward;
  ingot_backward_args backward;
  std::vector<float> numbers = std::vector<float>(1024, 0.25F);
  std::vector<std::vector<float>> outputs;
};

ingot_problem problem_of(std::int64_t batch, std::int64_t heads, std::int64_t heads_kv,
                         std::int64_t q, std::int64_t k, std::int64_t dim = 64) {
  ingot_problem p;
  ingot_problem_init(&p);
  p.batch = batch, p.num_heads = heads, p.num_heads_kv = heads_kv;
  p.seqlen_q = q, p.seqlen_k = k;
  p.head_dim = p.head_dim_v = dim;
  return p;
}

class EmptyWork : public testing::TestWithParam<const char*> {};

TEST_P(EmptyWork, OfForward) {
  for (const ingot_problem& p :
       {problem_of(huge, 1, 1, 0, 0), problem_of(huge, 1, 1, 0, 1), problem_of(0, huge, 1, 1, 1),
        problem_of(1, huge, huge, 0, 4), problem_of(huge, 32, 1, 0, 9)}) {
    Shared s(p);
    s.forward.o = s.nothing();
    s.forward.lse = s.nothing();
    ASSERT_EQ(ingot_attention_forward(shared_context(), GetParam(), &p, &s.forward), INGOT_OK)
        << ingot_last_error();
    EXPECT_EQ(s.outputs[0][0], -7.0F);
  }
}

TEST_P(EmptyWork, OfBackward) {
  for (const ingot_problem& p :
       {problem_of(huge, 1, 1, 0, 0), problem_of(0, huge, 1, 1, 1), problem_of(1, huge, 1, 0, 0)}) {
    Shared s(p);
    s.backward.dq = s.nothing(), s.backward.dk = s.nothing(), s.backward.dv = s.nothing();
    ASSERT_EQ(ingot_attention_backward(shared_context(), GetParam(), &p, &s.backward), INGOT_OK)
        << ingot_last_error();
    EXPECT_EQ(s.outputs[0][0], -7.0F);
  }
}

TEST_P(EmptyWork, OfAGradientThatHasNoElementBesideOthersThatAreNotWanted) {
  {  // queries in plenty, and the gradients of no key
    Shared s(problem_of(1 << 20, 1, 1, 1 << 20, 0));
    s.backward.dk = s.nothing(), s.backward.dv = s.nothing();
    ASSERT_EQ(ingot_attention_backward(shared_context(), GetParam(), &s.problem, &s.backward),
              INGOT_OK);
  }
  {  // keys in plenty, and the gradient of no query
    Shared s(problem_of(1 << 20, 1, 1, 0, 1 << 20));
    s.backward.dq = s.nothing();
    ASSERT_EQ(ingot_attention_backward(shared_context(), GetParam(), &s.problem, &s.backward),
              INGOT_OK);
  }
}

TEST_P(EmptyWork, OfHeadsWithoutQueriesLeavesZeros) {
  Shared s(problem_of(1, huge, 1, 0, 3, 8));
  s.backward.dk = s.output(1, 3, 8), s.backward.dv = s.output(1, 3, 8);
  ASSERT_EQ(ingot_attention_backward(shared_context(), GetParam(), &s.problem, &s.backward),
            INGOT_OK)
      << ingot_last_error();
  for (const std::vector<float>& gradient : s.outputs) {
    for (const float x : gradient) EXPECT_EQ(x, 0.0F);
  }
}

TEST_P(EmptyWork, OfAGroup) {
  Shared s(problem_of(huge, 1, 1, 0, 0));
  s.forward.o = s.nothing();
  s.backward.dq = s.nothing();
  ingot_plan* plan = nullptr;
  ASSERT_EQ(ingot_plan_create(shared_context(), GetParam(), &s.problem, &plan), INGOT_OK);
  const ingot_plan* const plans[] = {plan, plan};
  const ingot_forward_args* const forward[] = {&s.forward, &s.forward};
  const ingot_backward_args* const backward[] = {&s.backward, &s.backward};
  EXPECT_EQ(ingot_forward_group(plans, forward, 2), INGOT_OK);
  EXPECT_EQ(ingot_backward_group(plans, backward, 2), INGOT_OK);
  ingot_plan_destroy(plan);
}

/// What stands in the strides of a dimension that no element needs is nobody's number.
TEST_P(EmptyWork, DoesNoArithmeticWithStridesThatNothingNeeds) {
  constexpr std::int64_t any = INT64_MIN;
  {
    Shared s(problem_of(3, 1, 1, 0, 0));
    const ingot_tensor none = {nullptr, {any, any, any, any}};
    s.forward.q = s.forward.k = s.forward.v = s.forward.o = s.forward.lse = none;
    EXPECT_EQ(ingot_attention_forward(shared_context(), GetParam(), &s.problem, &s.forward),
              INGOT_OK)
        << ingot_last_error();
  }
  {
    Shared s(problem_of(1, 1, 1, 2, 0, 1));  // o = 0 of no key
    s.forward.k = s.forward.v = {nullptr, {any, any, any, any}};
    s.forward.q = {s.numbers.data(), {any, any, 1, any}};
    s.forward.o = s.output(1, 2, 1);
    s.forward.o.stride[0] = s.forward.o.stride[3] = any;
    ASSERT_EQ(ingot_attention_forward(shared_context(), GetParam(), &s.problem, &s.forward),
              INGOT_OK)
        << ingot_last_error();
    EXPECT_EQ(s.outputs[0], (std::vector<float>{0, 0}));
  }
  {
    Shared s(problem_of(1, 1, 1, 1, 1, 1));
    const ingot_tensor one = {s.numbers.data(), {any, any, any, any}};
    s.forward.q = s.forward.k = s.forward.v = one;
    s.forward.o = s.output(1, 1, 1);
    std::fill_n(s.forward.o.stride, 4, any);
    ASSERT_EQ(ingot_attention_forward(shared_context(), GetParam(), &s.problem, &s.forward),
              INGOT_OK)
        << ingot_last_error();
    EXPECT_EQ(s.outputs[0][0], 0.25F);
    s.backward.q = s.backward.k = s.backward.v = s.backward.o = s.backward.lse = s.backward.dout =
        one;
    s.backward.dq = s.backward.dk = s.backward.dv = s.forward.o;
    s.backward.dk = s.output(1, 1, 1), s.backward.dv = s.output(1, 1, 1);
    std::fill_n(s.backward.dv.stride, 4, any);
    EXPECT_EQ(ingot_attention_backward(shared_context(), GetParam(), &s.problem, &s.backward),
              INGOT_OK)
        << ingot_last_error();
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EmptyWork, testing::Values("cpu", "reference"),
                         [](const auto& test) { return std::string(test.param); });

double seconds_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Asks a call of one thread, which would take hours, to end; the time of the processor until it
/// has.
template <class Args, class Call>
double seconds_to_end(Args& args, Call&& call) {
  std::int32_t cancel = 0;
  args.submission.cancel = &cancel;
  clockid_t clock{};
  pthread_getcpuclockid(pthread_self(), &clock);
  const double started = seconds_of(clock);
  double asked = 0;
  std::atomic<bool> over = false;
  std::thread later([&] {
    while (seconds_of(clock) < started + 0.02 && !over) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    asked = seconds_of(clock);
    __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
  });
  EXPECT_EQ(call(), INGOT_CANCELLED) << ingot_last_error();
  const double ended = seconds_of(clock);
  over = true;
  later.join();
  return ended - asked;
}

// Of the processor. A sanitizer makes a tile take many times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double most_seconds = 5;
#else
constexpr double most_seconds = 0.1;
#endif

class CancelWithin : public testing::Test {
 protected:
  void ends_forward(const char* device, const ingot_problem& p) {
    SCOPED_TRACE(device);
    Shared s(p);
    s.forward.o = s.output(p.num_heads, p.seqlen_q, p.head_dim_v);
    EXPECT_LT(seconds_to_end(
                  s.forward,
                  [&] { return ingot_attention_forward(context.get(), device, &p, &s.forward); }),
              most_seconds);
  }

  void ends_backward(const char* device, const ingot_problem& p, bool dq) {
    SCOPED_TRACE(std::string(device) + (dq ? " dq" : " dk and dv"));
    Shared s(p);
    if (dq) s.backward.dq = s.output(p.num_heads, p.seqlen_q, p.head_dim);
    if (!dq) s.backward.dk = s.output(p.num_heads_kv, p.seqlen_k, p.head_dim);
    if (!dq) s.backward.dv = s.output(p.num_heads_kv, p.seqlen_k, p.head_dim_v);
    EXPECT_LT(seconds_to_end(
                  s.backward,
                  [&] { return ingot_attention_backward(context.get(), device, &p, &s.backward); }),
              most_seconds);
  }

  ContextHandle context = make_context(1);
};

constexpr std::int64_t days = std::int64_t{1} << 36;   // of keys
constexpr std::int64_t hours = std::int64_t{1} << 28;  // of queries, which take 8 bytes each

TEST_F(CancelWithin, AUnitOfForward) { ends_forward("cpu", problem_of(1, 1, 1, 128, days)); }
TEST_F(CancelWithin, AUnitOfForwardOf16Bits) {
  ingot_problem p = problem_of(1, 1, 1, 128, days);
  p.k_dtype = p.v_dtype = INGOT_BF16;
  ends_forward("cpu", p);
}
TEST_F(CancelWithin, AUnitOfDecode) { ends_forward("cpu", problem_of(1, 1, 1, 1, days)); }
TEST_F(CancelWithin, AUnitOfFusedBackward) {
  ends_backward("cpu", problem_of(1, 1, 1, hours, 64), false);
}
TEST_F(CancelWithin, AUnitOfFusedBackwardOfManyHeads) {
  ends_backward("cpu", problem_of(1, hours / 16, 1, 16, 64), false);
}
TEST_F(CancelWithin, AUnitOfDqAlone) { ends_backward("cpu", problem_of(1, 1, 1, 64, days), true); }
TEST_F(CancelWithin, AUnitOfRowsThatSeeNothing) {
  ingot_problem p = problem_of(1, 1, 1, hours, 64);
  p.causal = INGOT_CAUSAL_BOTTOM_RIGHT;  // only the last 64 of all rows see a key
  ends_backward("cpu", p, false);
}
TEST_F(CancelWithin, AHeadOfTheReference) {
  ends_forward("reference", problem_of(1, 1, 1, 1 << 16, 1 << 14));
  ends_backward("reference", problem_of(1, 1, 1, 1 << 16, 1 << 14), true);
}

}  // namespace
}  // namespace ingot::conformance
