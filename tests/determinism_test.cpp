// The same inputs give the same bits: whatever the number of threads, the workspace, the outputs
// asked for, and whatever else runs.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <thread>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {

inline void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

namespace {

using Bytes = std::vector<std::byte>;

/// o, lse, dq, dk, dv, dbias, dsinks as they lie in memory; of a part that is off: nothing.
std::vector<Bytes> outputs(const Operands& t) {
  std::vector<Bytes> all;
  for (const Operand* x : {&t.o, &t.lse, &t.dq, &t.dk, &t.dv, &t.parts.dbias, &t.parts.dsinks})
    all.push_back(x->buffer == nullptr ? Bytes() : x->buffer->bytes());
  return all;
}

std::vector<Bytes> run_fresh(const ingot_plan* plan, const ingot_problem& p, const Case& c,
                             bool own_workspace) {
  const Operands t(p, c.layout, c.parts);
  fill(t, p, c);
  const std::string message = run(plan, t, own_workspace);
  EXPECT_EQ(message, "") << c.name;
  return outputs(t);
}

PlanHandle plan_on_cpu(ingot_context* context, const ingot_problem& p) {
  Outcome outcome;
  PlanHandle plan = make_plan(context, "cpu", p, outcome);
  EXPECT_NE(plan, nullptr) << outcome.message;
  return plan;
}

/// Shapes in which threads share work in different ways: many heads, one head, few rows with long
/// keys, masks, empty.
std::vector<Case> rows() {
  Table table(true);
  for (const ingot_dtype in : all_dtypes) {
    table.add(Tier::quick,
              {.batch = 2, .heads = 6, .heads_kv = 2, .q = 100, .k = 130, .d = 40, .in = in});
    table.add(Tier::quick,
              {.q = 530, .k = 530, .d = 64, .in = in, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
    table.add(Tier::quick, {.heads = 4, .heads_kv = 1, .q = 1, .k = 5000, .d = 64, .in = in});
    table.add(
        Tier::quick,
        {.heads = 2, .q = 7, .k = 3000, .d = 80, .in = in, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
    table.add(Tier::quick, {.heads = 3,
                            .heads_kv = 3,
                            .q = 257,
                            .k = 200,
                            .d = 33,
                            .dv = 65,
                            .in = in,
                            .causal = INGOT_CAUSAL_TOP_LEFT,
                            .left = 70,
                            .softcap = 10});
    table.add(Tier::quick, {.heads = 8,
                            .heads_kv = 1,
                            .q = 70,
                            .k = 700,
                            .d = 128,
                            .in = in,
                            .out = INGOT_F32,
                            .grad = INGOT_F32,
                            .layout = Layout::bshd});
    table.add(Tier::quick,
              {.heads = 2, .q = 90, .k = 90, .d = 64, .in = in, .layout = Layout::transposed});
    table.add(Tier::quick, {.heads = 2, .q = 64, .k = 0, .d = 8, .in = in});
    Row parts{.batch = 2, .heads = 4, .heads_kv = 2, .q = 150, .k = 130, .d = 40, .in = in};
    parts.parts = all_parts(in, INGOT_F32);
    table.add(Tier::quick, parts);
    parts.parts.bias_dims = in == INGOT_F32 ? "1h1k" : "11qk";
    table.add(Tier::quick, parts);
    parts.q = 3, parts.k = 3000;
    table.add(Tier::quick, parts);
  }
  return table.take();
}

class Determinism : public testing::TestWithParam<Case> {};

TEST_P(Determinism, ThreadsAndWorkspaceDoNotChangeABit) {
  const Case& c = GetParam();
  const ingot_problem p = resolved(c.problem);
  std::vector<Bytes> want;
  for (const int threads : {1, 2, 3, 7}) {
    const ContextHandle context = make_context(threads);
    const PlanHandle plan = plan_on_cpu(context.get(), p);
    ASSERT_NE(plan, nullptr);
    for (const bool own_workspace : {false, true}) {
      const std::vector<Bytes> got = run_fresh(plan.get(), p, c, own_workspace);
      if (want.empty()) want = got;
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_TRUE(got[i] == want[i]) << "output " << i << " with " << threads << " threads";
      }
    }
  }
}

TEST_P(Determinism, OutputsNotAskedForDoNotChangeTheOthers) {
  const Case& c = GetParam();
  const ingot_problem p = resolved(c.problem);
  const PlanHandle plan = plan_on_cpu(shared_context(), p);
  ASSERT_NE(plan, nullptr);
  const Operands t(p, c.layout, c.parts);
  fill(t, p, c);
  ASSERT_EQ(run(plan.get(), t, false), "");

  const Operands alone(p, c.layout, c.parts);
  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = alone.o.tensor();
  f.parts = t.parts.tensors();
  ASSERT_EQ(ingot_forward(plan.get(), &f), INGOT_OK) << ingot_last_error();
  EXPECT_TRUE(alone.o.buffer->bytes() == t.o.buffer->bytes());
  for (const int wanted : {1, 2, 4, 3, 6, 8, 16, 9, 18, 24}) {
    if ((wanted & 24) != 0 && !c.parts.any()) continue;
    const Operands some(p, c.layout, c.parts);
    ingot_backward_args g;
    ingot_backward_args_init(&g);
    g.q = f.q, g.k = f.k, g.v = f.v, g.o = t.o.tensor(), g.lse = t.lse.tensor(),
    g.dout = t.dout.tensor();
    if ((wanted & 1) != 0) g.dq = some.dq.tensor();
    if ((wanted & 2) != 0) g.dk = some.dk.tensor();
    if ((wanted & 4) != 0) g.dv = some.dv.tensor();
    g.parts = f.parts;
    if ((wanted & 8) != 0) g.dbias = some.parts.dbias.tensor();
    if ((wanted & 16) != 0) g.dsinks = some.parts.dsinks.tensor();
    ASSERT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error();
    const std::vector<Bytes> got = outputs(some), want = outputs(t);
    for (std::size_t i = 0; i < 5; ++i) {
      const bool same = (wanted >> i & 1) == 0 || got[i + 2] == want[i + 2];
      EXPECT_TRUE(same) << "gradient " << i << " of " << wanted;
    }
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Rows, Determinism, testing::ValuesIn(rows()), case_name);

// Small calls side by side and large ones, forward and backward, on any number of threads and in a
// parallel region: the bits of single calls.
TEST(Group, GivesTheBitsOfSingleCalls) {
  Table table(true);
  for (const std::int64_t length : {1, 7, 40, 0, 130, 700, 33, 90, 5}) {
    table.add(Tier::quick, {.heads = 4,
                            .heads_kv = 2,
                            .q = length,
                            .k = length + 3,
                            .d = 64,
                            .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
  }
  const std::vector<Case> cases = table.take();
  const auto in_turn = [](void*, std::int32_t members, void (*body)(void*), void* argument) {
    for (std::int32_t i = 0; i < members; ++i) body(argument);
  };
  for (const int threads : {1, 2, 5, -3}) {  // negative: in a region
    ingot_context_options options;
    ingot_context_options_init(&options);
    options.num_threads = std::abs(threads);
    if (threads < 0) options.parallel_region = in_turn;
    ingot_context* made = nullptr;
    ASSERT_EQ(ingot_context_create(&options, &made), INGOT_OK) << ingot_last_error();
    const ContextHandle context(made);
    std::vector<PlanHandle> plans;
    std::vector<std::unique_ptr<Operands>> grouped;
    std::vector<ingot_forward_args> f(cases.size());
    std::vector<ingot_backward_args> g(cases.size());
    std::vector<const ingot_plan*> handles;
    std::vector<const ingot_forward_args*> forward;
    std::vector<const ingot_backward_args*> backward;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const ingot_problem p = resolved(cases[i].problem);
      plans.push_back(plan_on_cpu(context.get(), p));
      ASSERT_NE(plans.back(), nullptr);
      handles.push_back(plans.back().get());
      const Operands& t = *grouped.emplace_back(std::make_unique<Operands>(p, cases[i].layout));
      fill(t, p, cases[i]);
      ingot_forward_args_init(&f[i]);
      ingot_backward_args_init(&g[i]);
      f[i].q = g[i].q = t.q.tensor(), f[i].k = g[i].k = t.k.tensor();
      f[i].v = g[i].v = t.v.tensor(), f[i].o = g[i].o = t.o.tensor();
      f[i].lse = g[i].lse = t.lse.tensor(), g[i].dout = t.dout.tensor();
      g[i].dq = t.dq.tensor(), g[i].dk = t.dk.tensor(), g[i].dv = t.dv.tensor();
      forward.push_back(&f[i]), backward.push_back(&g[i]);
    }
    const auto count = static_cast<std::int32_t>(cases.size());
    ASSERT_EQ(ingot_forward_group(handles.data(), forward.data(), count), INGOT_OK)
        << ingot_last_error();
    ASSERT_EQ(ingot_backward_group(handles.data(), backward.data(), count), INGOT_OK)
        << ingot_last_error();
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const ingot_problem p = resolved(cases[i].problem);
      const PlanHandle single = plan_on_cpu(shared_context(), p);
      EXPECT_TRUE(outputs(*grouped[i]) == run_fresh(single.get(), p, cases[i], false))
          << cases[i].name << " on " << threads;
    }
  }
}

TEST(Concurrency, OnePlanRunsFromSeveralThreads) {
  Table table(true);
  table.add(
      Tier::quick,
      {.heads = 4, .heads_kv = 2, .q = 90, .k = 130, .d = 64, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
  table.add(Tier::quick, {.heads = 2, .q = 2, .k = 3000, .d = 64, .in = INGOT_BF16});
  for (const Case& c : table.take()) {
    const ingot_problem p = resolved(c.problem);
    const ContextHandle context = make_context(3);
    const PlanHandle plan = plan_on_cpu(context.get(), p);
    ASSERT_NE(plan, nullptr);
    const std::vector<Bytes> want = run_fresh(plan.get(), p, c, false);
    std::vector<std::thread> users;
    std::vector<int> wrong(4, -1);
    for (std::size_t user = 0; user < wrong.size(); ++user) {
      users.emplace_back([&, user] {
        wrong[user] = 0;
        for (int i = 0; i < 4; ++i)
          wrong[user] += run_fresh(plan.get(), p, c, (i + user) % 2 == 0) != want ? 1 : 0;
      });
    }
    for (std::thread& user : users) user.join();
    EXPECT_EQ(wrong, std::vector<int>(4, 0)) << c.name;
  }
}

}  // namespace
}  // namespace ingot::conformance
