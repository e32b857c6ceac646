// Results are computed in f32 and rounded once: with 16-bit outputs come the nearest numbers to
// what f32 outputs hold.
#include <gtest/gtest.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

void run_on_cpu(const ingot_problem& p, const Operands& t, const Case& c) {
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "cpu", p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  fill(t, p, c);
  ASSERT_EQ(run(plan.get(), t, false), "");
}

void expect_rounded(const Operand& narrow, const Operand& wide) {
  const ingot_dtype dtype = narrow.buffer->dtype();
  const Dense got = narrow.dense(), exact = wide.dense();
  for (std::size_t i = 0; i < got.data.size(); ++i) {
    ASSERT_EQ(got.data[i], round_to(exact.data[i], dtype)) << narrow.name << " element " << i;
  }
}

class Rounding : public testing::TestWithParam<Row> {};

TEST_P(Rounding, OnceToTheNearest) {
  Table table(true);
  table.add(Tier::quick, GetParam());
  const Case c = table.take().front();
  ingot_problem p = resolved(c.problem);
  p.o_dtype = p.dq_dtype = p.dk_dtype = p.dv_dtype = INGOT_F32;
  const Operands wide(p, c.layout);
  run_on_cpu(p, wide, c);
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16}) {
    ingot_problem forward = p;
    forward.o_dtype = dtype;
    const Operands o(forward, c.layout);
    run_on_cpu(forward, o, c);
    expect_rounded(o.o, wide.o);
    ingot_problem backward = p;
    backward.dq_dtype = backward.dk_dtype = backward.dv_dtype = dtype;
    const Operands gradients(backward, c.layout);
    run_on_cpu(backward, gradients, c);
    expect_rounded(gradients.dq, wide.dq);
    expect_rounded(gradients.dk, wide.dk);
    expect_rounded(gradients.dv, wide.dv);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Rounding,
    testing::Values(Row{.heads = 2, .q = 70, .k = 90, .d = 40},
                    Row{.heads = 2, .q = 70, .k = 70, .d = 33, .layout = Layout::transposed},
                    Row{.heads = 2, .q = 2, .k = 2100, .d = 70},
                    Row{.q = 40, .k = 60, .d = 17, .layout = Layout::every_other},
                    Row{.q = 40, .k = 60, .d = 24, .scale = 1e-3F, .data = Data::huge_logits}),
    [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace ingot::conformance
