// The backward pass of the CPU back end where the conformance table does not look: every
// instruction set, the two forms against each other, numbers that are not finite, and its plan.
#include "cpu_backward.hpp"

namespace ingot {
namespace {

/// Shapes around the edges of blocks and vectors, with every kind of mask.
std::vector<Problem> problems() {
  std::vector<Problem> all = {shape(2, 2, 64, 64, 64, 64),   shape(1, 1, 1, 1, 1, 1),
                              shape(3, 1, 129, 65, 33, 17),  shape(4, 2, 257, 127, 16, 40),
                              shape(1, 1, 300, 1, 8, 80),    shape(2, 1, 5, 200, 72, 24),
                              shape(1, 1, 140, 90, 256, 31), shape(1, 1, 20, 70, 10, 512),
                              shape(2, 1, 0, 30, 8, 8),      shape(2, 1, 30, 0, 8, 8)};
  const Problem masked = shape(4, 2, 211, 301, 40, 24);
  const Problem wide = shape(2, 1, 301, 211, 24, 40);
  const Problem last_tile_of_one_key = shape(1, 1, 300, 65, 16, 16);
  for (const Problem& base : {masked, wide, last_tile_of_one_key}) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      Problem p = base;
      p.causal = causal;
      all.push_back(p);
      p.window_left = 37;
      all.push_back(p);
      p.window_right = 9;
      p.softcap = 1.5F;
      all.push_back(p);
    }
  }
  return all;
}

class CpuBackward : public testing::TestWithParam<std::int64_t> {};

TEST_P(CpuBackward, GradientsEqualTheReference) {
  const ForcedTarget target(GetParam());
  for (const Problem& p : problems()) {
    const Case c(p);
    SCOPED_TRACE(plan_for(p, 2).config.kernel);
    expect_near(run(c), run_reference(c));
  }
}

TEST_P(CpuBackward, BothFormsGiveTheSameBits) {
  const ForcedTarget target(GetParam());
  for (const Problem& p : problems()) {
    const Case c(p);
    ASSERT_EQ(plan_for(p, 1).config.kernel, "backward_fused");
    ASSERT_EQ(plan_for(p, 16).config.kernel, "backward_two_pass");
    const Gradients one = run(c, 1);
    for (const int threads : {2, 3, 16}) {
      const Gradients other = run(c, threads);
      expect_same_bits(other.dq, one.dq);
      expect_same_bits(other.dk, one.dk);
      expect_same_bits(other.dv, one.dv);
    }
  }
}

TEST_P(CpuBackward, NumbersThatAreNotFiniteStayWithThePairsThatSeeThem) {
  const ForcedTarget target(GetParam());
  Problem p = shape(2, 1, 150, 150, 24, 20);
  p.causal = Causal::top_left;
  for (const float bad : {infinity, -infinity, nan}) {
    for (const int which : {0, 1, 2, 3}) {
      Case c(p);
      Packed* const tensors[] = {&c.q, &c.k, &c.v, &c.dout};
      Packed& t = *tensors[which];
      t.x[static_cast<std::size_t>(70 * t.stride[2] + 3)] = bad;
      c.run_reference_forward();
      SCOPED_TRACE("tensor " + std::to_string(which) + " holds " + std::to_string(bad));
      for (const int threads : {1, 16}) expect_near(run(c, threads), run_reference(c));
    }
  }
}

std::vector<std::int64_t> targets() { return supported_targets(); }
INSTANTIATE_TEST_SUITE_P(, CpuBackward, testing::ValuesIn(targets()), name_of_target);

TEST(CpuBackwardRows, WithoutWeightContributeNothing) {
  Case c(shape(1, 1, 40, 40, 16, 16));
  for (std::int64_t row = 8; row < 24; ++row) {
    c.lse.x[static_cast<std::size_t>(row)] = -infinity;
    for (std::int64_t d = 0; d < 16; ++d) c.o.x[static_cast<std::size_t>(row * 16 + d)] = 0;
  }
  c.k.x[5] = infinity;
  const Gradients g = run(c);
  for (std::int64_t i = 8 * 16; i < 24 * 16; ++i) EXPECT_EQ(g.dq.x[static_cast<std::size_t>(i)], 0);
}

/// Every set of outputs, in both forms, gives the bits of all three.
void expect_same_bits_of_every_set(const Case& c) {
  const Gradients all = run(c);
  for (const int threads : {1, 16}) {
    for (int wanted = 1; wanted < 8; ++wanted) {
      Gradients g(c.p);
      BackwardArgs args = c.args(g);
      if ((wanted & 1) == 0) args.dq.data = nullptr;
      if ((wanted & 2) == 0) args.dk.data = nullptr;
      if ((wanted & 4) == 0) args.dv.data = nullptr;
      run_planned(c, args, threads);
      const Gradients none(c.p);
      expect_same_bits(g.dq, (wanted & 1) != 0 ? all.dq : none.dq);
      expect_same_bits(g.dk, (wanted & 2) != 0 ? all.dk : none.dk);
      expect_same_bits(g.dv, (wanted & 4) != 0 ? all.dv : none.dv);
    }
  }
}

TEST(CpuBackwardOutputs, NotAskedForDoNotChangeTheOthers) {
  Problem p = shape(4, 2, 150, 130, 40, 24);
  p.causal = Causal::bottom_right;
  expect_same_bits_of_every_set(Case(p));
}

TEST(CpuBackwardOutputs, NotAskedForDoNotChangeWhereNumbersAreNotFinite) {
  Problem p = shape(2, 1, 70, 60, 24, 20);
  p.causal = Causal::top_left;
  for (const float bad : {infinity, nan}) {
    for (const int which : {0, 1, 2, 3}) {
      Case c(p);
      Packed* const tensors[] = {&c.q, &c.k, &c.v, &c.dout};
      tensors[which]->x[static_cast<std::size_t>(7 * tensors[which]->stride[2] + 3)] = bad;
      c.run_reference_forward();
      SCOPED_TRACE("tensor " + std::to_string(which) + " holds " + std::to_string(bad));
      expect_same_bits_of_every_set(c);
      expect_near(run(c), run_reference(c));
    }
  }
}

TEST(CpuBackwardOutputs, OfARowWithoutWeightAloneStayFinite) {
  Case c(shape(1, 1, 40, 40, 16, 16));
  c.lse.x[8] = -infinity;
  c.dout.x[8 * 16 + 3] = nan;
  expect_same_bits_of_every_set(c);
  for (const float x : run(c).dv.x) ASSERT_TRUE(std::isfinite(x));
}

TEST(CpuBackwardPlan, TakesTwoPassesBeyondTheMemoryCap) {
  Problem p = shape(32, 32, 1 << 10, 1 << 19, 128, 128);
  const PassPlan pass = plan_for(p, 2);
  EXPECT_EQ(pass.config.kernel, "backward_two_pass");
  EXPECT_LE(pass.workspace_bytes, std::size_t{256} << 20);
  EXPECT_NE(pass.why.front().find("exceed the cap of 256 MiB"), std::string::npos)
      << pass.why.front();
  p.seqlen_k = 1 << 12;
  EXPECT_EQ(plan_for(p, 2).config.kernel, "backward_fused");
}

TEST(CpuBackwardPlan, BlocksDoNotDependOnThreads) {
  for (const Problem& p : problems()) {
    const Config one = plan_for(p, 1).config;
    for (const int threads : {2, 64}) {
      EXPECT_EQ(plan_for(p, threads).config.block_m, one.block_m);
      EXPECT_EQ(plan_for(p, threads).config.block_n, one.block_n);
    }
  }
}

}  // namespace
}  // namespace ingot
