// Operands and runs of the backward pass of the CPU back end, below the public API: any number of
// threads, any instruction set, and the reference to compare with.
#pragma once

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

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float nan = std::numeric_limits<float>::quiet_NaN();

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

inline Gradients run_reference(const Case& c) {
  Gradients g(c.p);
  const auto reference = make_reference_backend();
  reference->backward(reference->plan(c.p), c.args(g));
  return g;
}

inline PassPlan plan_for(const Problem& p, int threads) {
  return plan_backward(p, detect_cpu(threads));
}

inline void run_planned(const Case& c, const BackwardArgs& args, int threads) {
  Plan plan;
  plan.problem = c.p;
  plan.backward = plan_for(c.p, threads);
  ThreadPool pool(threads);
  WorkspacePool workspaces;
  const WorkspacePool::Lease lease = workspaces.take(plan.backward.workspace_bytes);
  std::memset(lease.bytes().data(), 0xFF, lease.bytes().size());
  run_backward(plan, args, pool, lease.bytes());
}

inline Gradients run(const Case& c, int threads = 2) {
  Gradients g(c.p);
  run_planned(c, c.args(g), threads);
  return g;
}

/// Equal to a few roundings of the largest element (or of the operands, where all cancels), and not
/// finite in the same places.
inline void expect_near(const char* name, const Packed& got, const Packed& want) {
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

inline void expect_near(const Gradients& got, const Gradients& want) {
  expect_near("dq", got.dq, want.dq);
  expect_near("dk", got.dk, want.dk);
  expect_near("dv", got.dv, want.dv);
}

inline void expect_same_bits(const Packed& got, const Packed& want) {
  if (want.x.empty()) return;
  EXPECT_EQ(std::memcmp(got.x.data(), want.x.data(), want.x.size() * sizeof(float)), 0);
}

inline Problem shape(std::int64_t heads, std::int64_t heads_kv, std::int64_t seqlen_q,
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

}  // namespace ingot
