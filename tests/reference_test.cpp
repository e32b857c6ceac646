// The reference itself: cases that can be computed by hand, and its gradients against finite
// differences in fp64.
#include <gtest/gtest.h>

#include <functional>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

/// A problem in F64 with its tensors, on device "reference".
struct Fixture {
  ingot_problem p;
  Operands t;
  PlanHandle plan;

  explicit Fixture(const Case& c) : p(in_f64(c.problem)), t(p, c.layout) {
    Outcome outcome;
    plan = make_plan(shared_context(), "reference", p, outcome);
    if (plan == nullptr) throw std::runtime_error(outcome.message);
    fill(t, p, c);
  }

  void run() const {
    const std::string message = conformance::run(plan.get(), t, false);
    if (!message.empty()) throw std::runtime_error(message);
  }

  static ingot_problem in_f64(ingot_problem p) {
    p.q_dtype = p.k_dtype = p.v_dtype = p.o_dtype = INGOT_F64;
    return resolved(p);
  }
};

double get(const Operand& t, Index b, Index h, Index s, Index d) {
  return read_element(t.buffer->at(t.view.element(b, h, s, d)), t.buffer->dtype());
}
void set(const Operand& t, Index b, Index h, Index s, Index d, double x) {
  write_element(t.buffer->at(t.view.element(b, h, s, d)), t.buffer->dtype(), x);
}

Case make_case(const Row& row) {
  Table table(true);
  table.add(Tier::quick, row);
  return table.take().front();
}

TEST(Reference, OneKeyGivesItsValue) {
  const Fixture s(make_case({.q = 2, .k = 1, .d = 3, .scale = 2}));
  s.run();
  for (Index row = 0; row < 2; ++row) {
    double qk = 0;
    for (Index d = 0; d < 3; ++d) qk += get(s.t.q, 0, 0, row, d) * get(s.t.k, 0, 0, 0, d);
    EXPECT_NEAR(get(s.t.lse, 0, 0, row, 0), 2 * qk, 1e-6);
    for (Index d = 0; d < 3; ++d) {
      EXPECT_EQ(get(s.t.o, 0, 0, row, d), get(s.t.v, 0, 0, 0, d));
      EXPECT_EQ(get(s.t.dq, 0, 0, row, d), 0);
      EXPECT_NEAR(get(s.t.dv, 0, 0, 0, d), get(s.t.dout, 0, 0, 0, d) + get(s.t.dout, 0, 0, 1, d),
                  1e-15);
    }
  }
}

TEST(Reference, TwoKeysByHand) {
  const Fixture s(make_case({.q = 1, .k = 2, .d = 1, .scale = 1}));
  set(s.t.q, 0, 0, 0, 0, 1);
  set(s.t.k, 0, 0, 0, 0, std::log(3.0));
  set(s.t.k, 0, 0, 1, 0, 0);
  set(s.t.v, 0, 0, 0, 0, 10);
  set(s.t.v, 0, 0, 1, 0, 2);
  set(s.t.dout, 0, 0, 0, 0, 1);
  s.run();
  EXPECT_NEAR(get(s.t.o, 0, 0, 0, 0), 0.75 * 10 + 0.25 * 2, 1e-14);
  EXPECT_NEAR(get(s.t.lse, 0, 0, 0, 0), std::log(4.0), 1e-7);
  EXPECT_NEAR(get(s.t.dv, 0, 0, 0, 0), 0.75, 1e-14);
  EXPECT_NEAR(get(s.t.dv, 0, 0, 1, 0), 0.25, 1e-14);
  EXPECT_NEAR(get(s.t.dk, 0, 0, 0, 0), 0.75 * (10 - 8), 1e-14);
  EXPECT_NEAR(get(s.t.dk, 0, 0, 1, 0), 0.25 * (2 - 8), 1e-14);
  EXPECT_NEAR(get(s.t.dq, 0, 0, 0, 0), 1.5 * std::log(3.0), 1e-14);
}

TEST(Reference, SoftcapByHand) {
  const Fixture s(make_case({.q = 1, .k = 2, .d = 1, .scale = 4, .softcap = 2}));
  set(s.t.q, 0, 0, 0, 0, 1);
  set(s.t.k, 0, 0, 0, 0, 0.3);
  set(s.t.k, 0, 0, 1, 0, -5);
  s.run();
  const double first = 2 * std::tanh(0.6), second = 2 * std::tanh(-10.0);
  EXPECT_NEAR(get(s.t.lse, 0, 0, 0, 0), std::log(std::exp(first) + std::exp(second)), 1e-7);
}

TEST(Reference, RowsWithoutKeysAreZeroWithoutGradient) {
  // Bottom right with 5 rows and 2 keys: rows 0, 1 and 2 see nothing.
  const Fixture s(make_case({.q = 5, .k = 2, .d = 4, .causal = INGOT_CAUSAL_BOTTOM_RIGHT}));
  s.run();
  for (Index row = 0; row < 5; ++row) {
    EXPECT_EQ(std::isinf(get(s.t.lse, 0, 0, row, 0)), row < 3) << row;
    for (Index d = 0; d < 4; ++d) {
      EXPECT_EQ(get(s.t.o, 0, 0, row, d) == 0, row < 3) << row;
      EXPECT_EQ(get(s.t.dq, 0, 0, row, d) == 0, row < 4)
          << row;  // one key alone leaves q no influence
    }
  }
  EXPECT_LT(get(s.t.lse, 0, 0, 0, 0), 0);
}

TEST(Reference, NanBehindTheMaskReachesNothing) {
  const Fixture s(make_case({.q = 4, .k = 4, .d = 2, .causal = INGOT_CAUSAL_TOP_LEFT}));
  set(s.t.k, 0, 0, 3, 1, std::nan(""));
  set(s.t.v, 0, 0, 3, 0, std::nan(""));
  s.run();
  for (Index row = 0; row < 4; ++row) {
    EXPECT_EQ(std::isnan(get(s.t.o, 0, 0, row, 0)), row == 3) << row;
    EXPECT_EQ(std::isnan(get(s.t.dq, 0, 0, row, 0)), row == 3) << row;
  }
}

double loss(const Fixture& s) {
  s.run();
  double sum = 0;
  s.t.o.view.for_each([&](Index b, Index h, Index row, Index d) {
    sum += get(s.t.o, b, h, row, d) * get(s.t.dout, b, h, row, d);
  });
  return sum;
}

/// Moves every element of `input` both ways and compares with `gradient`.
void check_gradient(const Fixture& s, const Operand& input, const Operand& gradient,
                    const std::string& name) {
  const Dense want = [&] {
    s.run();
    return gradient.dense();
  }();
  const double step = 1e-5;
  std::size_t i = 0;
  input.view.for_each([&](Index b, Index h, Index row, Index d) {
    const double x = get(input, b, h, row, d);
    set(input, b, h, row, d, x + step);
    const double above = loss(s);
    set(input, b, h, row, d, x - step);
    const double below = loss(s);
    set(input, b, h, row, d, x);
    EXPECT_NEAR(want.data[i++], (above - below) / (2 * step), 2e-9)
        << name << " " << gradient.name << position(b, h, row, d);
  });
}

TEST(Reference, GradientsAreFiniteDifferences) {
  for (const ingot_causal causal : all_causals) {
    for (const float softcap : {0.0F, 1.5F}) {
      for (const Index left : {-1, 2}) {
        for (const bool long_keys : {true, false}) {
          const Row row{.heads = 2,
                        .heads_kv = 1,
                        .q = long_keys ? 4 : 6,
                        .k = long_keys ? 7 : 3,
                        .d = 3,
                        .dv = 2,
                        .causal = causal,
                        .left = left,
                        .right = left,
                        .scale = 0.8F,
                        .softcap = softcap,
                        .layout = Layout::bshd};
          const Fixture s(make_case(row));
          check_gradient(s, s.t.q, s.t.dq, name_of(row));
          check_gradient(s, s.t.k, s.t.dk, name_of(row));
          check_gradient(s, s.t.v, s.t.dv, name_of(row));
        }
      }
    }
  }
}

TEST(Reference, BackwardDoesNotLookAtOAndLse) {
  const Fixture s(make_case({.q = 6, .k = 5, .d = 3}));
  s.run();
  const Dense before = s.t.dq.dense();
  const Fixture again(make_case({.q = 6, .k = 5, .d = 3}));
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  args.q = again.t.q.tensor(), args.k = again.t.k.tensor(), args.v = again.t.v.tensor();
  args.o = again.t.o.tensor(), args.lse = again.t.lse.tensor(),
  args.dout = again.t.dout.tensor();  // never written: NaN
  args.dq = again.t.dq.tensor();
  ASSERT_EQ(ingot_backward(again.plan.get(), &args), INGOT_OK) << ingot_last_error();
  EXPECT_EQ(again.t.dq.dense().data, before.data);
}

}  // namespace
}  // namespace ingot::conformance
