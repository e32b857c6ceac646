// The backward pass of the CPU back end where the conformance table does not look: every
// instruction set, the two forms against each other, numbers that are not finite, and its plan.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpu/backward.hpp"
#include "cpu/backward_layout.hpp"
#include "cpu/cpu_plan.hpp"
#include "cpu/reference.hpp"
#include "cpu/thread_pool.hpp"
#include "cpu/workspace.hpp"
#include "targets.hpp"

namespace ingot {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// An f32 tensor, packed [batch, head, seqlen, head_dim].
struct Packed {
  std::vector<float> x;
  Strides stride{};

  Packed(std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t dims)
      : x(static_cast<std::size_t>(batch * heads * rows * dims), nan),
        stride{heads * rows * dims, rows * dims, dims, 1} {}

  void fill_normal(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& value : x) value = normal(random);
  }
  ConstTensor in() const { return {x.data(), stride}; }
  Tensor out() { return {x.data(), stride}; }
};

struct Gradients {
  Packed dq, dk, dv;

  explicit Gradients(const Problem& p)
      : dq(p.batch, p.num_heads, p.seqlen_q, p.head_dim),
        dk(p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim),
        dv(p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v) {}
};

/// A problem, its operands, and o and lse as the reference gives them.
struct Case {
  Problem p;
  Packed q, k, v, dout, o, lse;

  explicit Case(const Problem& problem)
      : p(problem),
        q(p.batch, p.num_heads, p.seqlen_q, p.head_dim),
        k(p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim),
        v(p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v),
        dout(p.batch, p.num_heads, p.seqlen_q, p.head_dim_v),
        o(p.batch, p.num_heads, p.seqlen_q, p.head_dim_v),
        lse(p.batch, p.num_heads, p.seqlen_q, 1) {
    p.scale = 1.0F / std::sqrt(static_cast<float>(p.head_dim));
    unsigned seed = 1;
    for (Packed* t : {&q, &k, &v, &dout}) t->fill_normal(seed++);
    run_reference_forward();
  }

  void run_reference_forward() {
    const auto reference = make_reference_backend();
    ForwardArgs args;
    args.q = q.in(), args.k = k.in(), args.v = v.in(), args.o = o.out(), args.lse = lse.out();
    reference->forward(reference->plan(p), args);
  }

  BackwardArgs args(Gradients& g) const {
    BackwardArgs a;
    a.q = q.in(), a.k = k.in(), a.v = v.in(), a.dout = dout.in(), a.o = o.in(), a.lse = lse.in();
    a.dq = g.dq.out(), a.dk = g.dk.out(), a.dv = g.dv.out();
    return a;
  }
};

Gradients run_reference(const Case& c) {
  Gradients g(c.p);
  const auto reference = make_reference_backend();
  reference->backward(reference->plan(c.p), c.args(g));
  return g;
}

PassPlan plan_for(const Problem& p, int threads) { return plan_backward(p, detect_cpu(threads)); }

void run_planned(const Case& c, const BackwardArgs& args, int threads) {
  Plan plan;
  plan.problem = c.p;
  plan.backward = plan_for(c.p, threads);
  ThreadPool pool(threads);
  WorkspacePool workspaces;
  const WorkspacePool::Lease lease = workspaces.take(plan.backward.workspace_bytes);
  std::memset(lease.bytes().data(), 0xFF, lease.bytes().size());
  run_backward(plan, args, pool, lease.bytes());
}

Gradients run(const Case& c, int threads = 2) {
  Gradients g(c.p);
  run_planned(c, c.args(g), threads);
  return g;
}

/// Equal to a few roundings of the largest element (or of the operands, where all cancels), and not
/// finite in the same places.
void expect_near(const char* name, const Packed& got, const Packed& want) {
  float largest = 4;
  for (const float x : want.x) {
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
  }
  const float tolerance = 1e-5F * largest;
  for (std::size_t i = 0; i < want.x.size(); ++i) {
    ASSERT_EQ(std::isfinite(got.x[i]), std::isfinite(want.x[i]))
        << name << "[" << i << "] = " << got.x[i] << ", not " << want.x[i];
    if (!std::isfinite(want.x[i])) continue;
    ASSERT_NEAR(got.x[i], want.x[i], tolerance) << name << "[" << i << "]";
  }
}

void expect_near(const Gradients& got, const Gradients& want) {
  expect_near("dq", got.dq, want.dq);
  expect_near("dk", got.dk, want.dk);
  expect_near("dv", got.dv, want.dv);
}

void expect_same_bits(const Packed& got, const Packed& want) {
  if (want.x.empty()) return;
  EXPECT_EQ(std::memcmp(got.x.data(), want.x.data(), want.x.size() * sizeof(float)), 0);
}

Problem shape(std::int64_t heads, std::int64_t heads_kv, std::int64_t seqlen_q,
              std::int64_t seqlen_k, std::int64_t head_dim, std::int64_t head_dim_v) {
  Problem p;
  p.num_heads = heads;
  p.num_heads_kv = heads_kv;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  p.head_dim = head_dim;
  p.head_dim_v = head_dim_v;
  return p;
}

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

TEST(CpuBackwardOutputs, NotAskedForDoNotChangeTheOthers) {
  Problem p = shape(4, 2, 150, 130, 40, 24);
  p.causal = Causal::bottom_right;
  const Case c(p);
  const Gradients all = run(c);
  for (const int threads : {1, 16}) {
    for (int wanted = 1; wanted < 8; ++wanted) {
      Gradients g(p);
      BackwardArgs args = c.args(g);
      if ((wanted & 1) == 0) args.dq.data = nullptr;
      if ((wanted & 2) == 0) args.dk.data = nullptr;
      if ((wanted & 4) == 0) args.dv.data = nullptr;
      run_planned(c, args, threads);
      const Gradients none(p);
      expect_same_bits(g.dq, (wanted & 1) != 0 ? all.dq : none.dq);
      expect_same_bits(g.dk, (wanted & 2) != 0 ? all.dk : none.dk);
      expect_same_bits(g.dv, (wanted & 4) != 0 ? all.dv : none.dv);
    }
  }
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
