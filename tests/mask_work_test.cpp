// Blocks outside the mask are not visited: a NaN in one key reaches, as 0 * NaN, every row whose block is computed
// together with that key. Counting those rows measures the work without a clock.
#include <gtest/gtest.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

constexpr Index seqlen = 1024;
constexpr Index step = 32;  // every so many keys or rows hold the NaN in turn

struct Work {
  double forward = 0, dq = 0, dkv = 0;  // parts of the pairs of rows and cols that were computed
};

Index count_nan_rows(const Operand& t) {
  const Dense x = t.dense();
  Index count = 0;
  for (Index row = 0; row < seqlen; ++row) count += std::isnan(*x.row(0, 0, row)) ? 1 : 0;
  return count;
}

void set_row(const Operand& t, Index row, double x) {
  for (Index d = 0; d < t.view.shape[3]; ++d) {
    write_element(t.buffer->at(t.view.element(0, 0, row, d)), t.buffer->dtype(), x);
  }
}

/// Runs f with row `row` of t set to NaN.
template <class F>
void with_nan(const Operand& t, Index row, F&& f) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double was = read_element(t.buffer->at(t.view.element(0, 0, row, 0)), t.buffer->dtype());
  set_row(t, row, nan);
  f();
  set_row(t, row, was);
}

Work measure(const Row& row) {
  Table table(true);
  table.add(Tier::quick, row);
  const Case c = table.take().front();
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "cpu", p, outcome);
  EXPECT_NE(plan, nullptr) << outcome.message;
  const Operands t(p, c.layout), dirty(p, c.layout);
  fill(t, p, c);
  EXPECT_EQ(run(plan.get(), t, false), "");

  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = dirty.o.tensor();
  ingot_backward_args g;
  ingot_backward_args_init(&g);
  g.q = f.q, g.k = f.k, g.v = f.v, g.o = t.o.tensor(), g.lse = t.lse.tensor(), g.dout = t.dout.tensor();
  g.dq = dirty.dq.tensor(), g.dk = dirty.dk.tensor(), g.dv = dirty.dv.tensor();
  Work work;
  for (Index i = 0; i < seqlen; i += step) {
    with_nan(t.v, i, [&] { EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_OK) << ingot_last_error(); });
    work.forward += static_cast<double>(count_nan_rows(dirty.o));
    with_nan(t.k, i, [&] { EXPECT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error(); });
    work.dq += static_cast<double>(count_nan_rows(dirty.dq));
    with_nan(t.dout, i, [&] { EXPECT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error(); });
    work.dkv += static_cast<double>(count_nan_rows(dirty.dv));
  }
  const double pairs = static_cast<double>(seqlen * seqlen) / step;
  return {work.forward / pairs, work.dq / pairs, work.dkv / pairs};
}

void expect_between(const Work& work, double least, double most) {
  for (const double part : {work.forward, work.dq, work.dkv}) {
    EXPECT_GE(part, least);
    EXPECT_LE(part, most);
  }
}

TEST(MaskWork, EverythingWithoutMask) {
  expect_between(measure({.q = seqlen, .k = seqlen, .d = 16}), 1, 1);
}

TEST(MaskWork, CausalIsAboutHalf) {
  for (const ingot_causal causal : {INGOT_CAUSAL_TOP_LEFT, INGOT_CAUSAL_BOTTOM_RIGHT}) {
    for (const ingot_dtype in : {INGOT_F32, INGOT_BF16}) {
      expect_between(measure({.q = seqlen, .k = seqlen, .d = 16, .in = in, .causal = causal}), 0.48, 0.63);
    }
  }
}

TEST(MaskWork, AWindowCostsItsWidth) {
  // 65 of 1024 keys, and a block more on both sides.
  expect_between(measure({.q = seqlen, .k = seqlen, .d = 16, .left = 32, .right = 32}), 0.06, 0.33);
  expect_between(measure({.q = seqlen, .k = seqlen, .d = 16, .causal = INGOT_CAUSAL_TOP_LEFT, .left = 64}), 0.06, 0.33);
}

}  // namespace
}  // namespace ingot::conformance
