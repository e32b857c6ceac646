// The reference itself: cases that can be computed by hand, and its gradients against finite
// differences in fp64.
#include <gtest/gtest.h>

#include "reference_fixture.hpp"

namespace ingot::conformance {
namespace {

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
