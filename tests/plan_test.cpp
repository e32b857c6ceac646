// plan() is a pure function within limits, and explain tells what it decided.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

std::string explain(const ingot_plan* plan, ingot_format format) {
  std::size_t needed = 0;
  EXPECT_EQ(ingot_plan_explain(plan, format, nullptr, 0, &needed), INGOT_OK) << ingot_last_error();
  std::string text(needed, '?');
  EXPECT_EQ(ingot_plan_explain(plan, format, text.data(), text.size(), &needed), INGOT_OK)
      << ingot_last_error();
  EXPECT_EQ(text.back(), '\0');
  text.pop_back();
  EXPECT_EQ(text.find('\0'), std::string::npos);
  return text;
}

PlanHandle plan_for(ingot_context* context, const std::string& device, const ingot_problem& p) {
  Outcome outcome;
  PlanHandle plan = make_plan(context, device.c_str(), p, outcome);
  EXPECT_NE(plan, nullptr) << outcome.message;
  return plan;
}

std::size_t workspace_bytes(const ingot_plan* plan, ingot_pass pass) {
  std::size_t bytes = 0;
  EXPECT_EQ(ingot_plan_workspace_bytes(plan, pass, &bytes), INGOT_OK) << ingot_last_error();
  return bytes;
}

TEST(Plan, TheSameProblemGivesTheSamePlan) {
  const ContextHandle other = make_context(0);
  for (const std::string& device : device_names(shared_context())) {
    for (const Case& c : cases(false)) {
      Outcome outcome;
      const PlanHandle first = make_plan(shared_context(), device.c_str(), c.problem, outcome);
      if (outcome.status == Status::skipped) continue;
      const PlanHandle second = plan_for(other.get(), device, c.problem);
      ASSERT_EQ(explain(first.get(), INGOT_JSON), explain(second.get(), INGOT_JSON)) << c.name;
      ASSERT_EQ(explain(first.get(), INGOT_TEXT), explain(second.get(), INGOT_TEXT)) << c.name;
    }
  }
}

TEST(Plan, ExplainNamesTheKernelTheMemoryAndTheReasons) {
  for (const std::string& device : device_names(shared_context())) {
    for (const Case& c : cases(false)) {
      Outcome outcome;
      const PlanHandle plan = make_plan(shared_context(), device.c_str(), c.problem, outcome);
      if (outcome.status == Status::skipped) continue;
      const nlohmann::json json = nlohmann::json::parse(explain(plan.get(), INGOT_JSON));
      ASSERT_EQ(json.at("device"), device);
      ASSERT_EQ(json.at("problem").at("seqlen_k"), c.problem.seqlen_k);
      for (const ingot_pass pass : {INGOT_FORWARD, INGOT_BACKWARD}) {
        const nlohmann::json& part = json.at(pass == INGOT_FORWARD ? "forward" : "backward");
        ASSERT_EQ(part.at("workspace_bytes"), workspace_bytes(plan.get(), pass));
        ASSERT_FALSE(part.at("why").empty()) << c.name;
        ASSERT_EQ(part.at("config").at("head_dim"), c.problem.head_dim);
        ASSERT_EQ(part.at("config").at("softcap"), c.problem.softcap > 0);
        ASSERT_GT(part.at("config").at("block_m"), 0);
        const std::string kernel = part.at("config").at("kernel");
        ASSERT_NE(explain(plan.get(), INGOT_TEXT).find(kernel), std::string::npos);
      }
    }
  }
}

TEST(Plan, ExplainCutsTextAtTheCapacity) {
  ingot_problem p;
  ingot_problem_init(&p);
  p.seqlen_q = p.seqlen_k = p.head_dim = p.head_dim_v = 16;
  const PlanHandle plan = plan_for(shared_context(), "cpu", p);
  const std::string whole = explain(plan.get(), INGOT_TEXT);
  char text[8] = "zzzzzzz";
  std::size_t needed = 0;
  ASSERT_EQ(ingot_plan_explain(plan.get(), INGOT_TEXT, text, 5, &needed), INGOT_OK);
  EXPECT_EQ(std::string(text), whole.substr(0, 4));
  EXPECT_EQ(text[5], 'z');
  EXPECT_EQ(needed, whole.size() + 1);
  EXPECT_EQ(ingot_plan_source(plan.get(), INGOT_FORWARD, nullptr, 0, &needed), INGOT_UNSUPPORTED);
  EXPECT_STREQ(ingot_last_error(),
               "unsupported: source: kernels of device cpu are compiled ahead of time");
}

ingot_problem long_problem(Index n, Index head_dim, ingot_dtype in) {
  ingot_problem p;
  ingot_problem_init(&p);
  p.num_heads = 8, p.num_heads_kv = 2;
  p.seqlen_q = p.seqlen_k = n;
  p.head_dim = p.head_dim_v = head_dim;
  p.q_dtype = in;
  return p;
}

TEST(Plan, WorkspaceOfTheForwardPassDoesNotGrowWithTheLength) {
  for (const Index head_dim : {64, 128}) {
    const ContextHandle context = make_context(4);
    const PlanHandle plan = plan_for(context.get(), "cpu", long_problem(4096, head_dim, INGOT_F32));
    const std::size_t bytes = workspace_bytes(plan.get(), INGOT_FORWARD);
    EXPECT_LE(bytes, 4U * (512 << 10)) << head_dim;  // tiles of four threads, within their L2
    const PlanHandle longer =
        plan_for(context.get(), "cpu", long_problem(Index{1} << 20, head_dim, INGOT_F32));
    EXPECT_EQ(workspace_bytes(longer.get(), INGOT_FORWARD), bytes) << head_dim;
  }
}

TEST(Plan, WorkspaceOfTheBackwardPassIsAtMostLinearInTheLength) {
  for (const ingot_dtype in : all_dtypes) {
    for (const Index head_dim : {64, 128, 512}) {
      const PlanHandle plan = plan_for(shared_context(), "cpu", long_problem(8192, head_dim, in));
      const PlanHandle longer =
          plan_for(shared_context(), "cpu", long_problem(16 * 8192, head_dim, in));
      EXPECT_LE(workspace_bytes(longer.get(), INGOT_BACKWARD),
                16 * workspace_bytes(plan.get(), INGOT_BACKWARD) + (1U << 20));
    }
  }
}

TEST(Plan, NoPieceOfTheKeysIsTooLongForAnF32Sum) {
  for (const Index batch : {1, 64}) {
    ingot_problem p = long_problem(1, 64, INGOT_F32);
    p.batch = batch, p.seqlen_k = (Index{1} << 30) + 1;
    const PlanHandle plan = plan_for(shared_context(), "cpu", p);
    const nlohmann::json json = nlohmann::json::parse(explain(plan.get(), INGOT_JSON));
    const Index split = json.at("forward").at("config").at("split_k");
    EXPECT_LE(p.seqlen_k / split, 1 << 22) << batch;
  }
}

TEST(Plan, DecodeSplitsKeysAndKeepsPartialResultsSmall) {
  ingot_problem p = long_problem(1, 128, INGOT_BF16);
  p.seqlen_k = 1 << 20;
  const PlanHandle plan = plan_for(shared_context(), "cpu", p);
  const nlohmann::json json = nlohmann::json::parse(explain(plan.get(), INGOT_JSON));
  EXPECT_GT(json.at("forward").at("config").at("split_k"), 1);
  EXPECT_LE(workspace_bytes(plan.get(), INGOT_FORWARD), 8U << 20);
}

}  // namespace
}  // namespace ingot::conformance
