// The forward pass of the CPU back end where the conformance table does not look: every instruction
// set, the two kernels against each other, numbers that are not finite, and the machinery around
// them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/error.hpp"
#include "cpu/cpu_backend.hpp"
#include "cpu/cpu_plan.hpp"
#include "cpu/forward.hpp"
#include "cpu/reference.hpp"
#include "targets.hpp"

namespace ingot {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// f32 tensors of one problem, packed [batch, head, seqlen, head_dim].
struct Case {
  Problem p;
  std::vector<float> q, k, v;

  explicit Case(const Problem& problem) : p(problem) {
    p.scale = 1.0F / std::sqrt(static_cast<float>(p.head_dim));
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& x, std::int64_t count) {
      x.resize(static_cast<std::size_t>(count));
      for (float& value : x) value = normal(random);
    };
    fill(q, p.batch * p.num_heads * p.seqlen_q * p.head_dim);
    fill(k, p.batch * p.num_heads_kv * p.seqlen_k * p.head_dim);
    fill(v, p.batch * p.num_heads_kv * p.seqlen_k * p.head_dim_v);
  }
};

struct Result {
  std::vector<float> o, lse;
};

Strides packed(std::int64_t heads, std::int64_t rows, std::int64_t dims) {
  return {heads * rows * dims, rows * dims, dims, 1};
}

Result run(Backend& backend, Case& c) {
  const Problem& p = c.p;
  Result result;
  result.o.assign(static_cast<std::size_t>(p.batch * p.num_heads * p.seqlen_q * p.head_dim_v), nan);
  result.lse.assign(static_cast<std::size_t>(p.batch * p.num_heads * p.seqlen_q), nan);
  ForwardArgs args;
  args.q = {c.q.data(), packed(p.num_heads, p.seqlen_q, p.head_dim)};
  args.k = {c.k.data(), packed(p.num_heads_kv, p.seqlen_k, p.head_dim)};
  args.v = {c.v.data(), packed(p.num_heads_kv, p.seqlen_k, p.head_dim_v)};
  args.o = {result.o.data(), packed(p.num_heads, p.seqlen_q, p.head_dim_v)};
  args.lse = {result.lse.data(), packed(p.num_heads, p.seqlen_q, 1)};
  backend.forward(backend.plan(p), args);
  return result;
}

Result run_on_cpu(Case& c, int threads = 0) {
  ContextOptions options;
  options.num_threads = threads;
  return run(*make_cpu_backend(options), c);
}

void expect_near(const std::vector<float>& x, const std::vector<float>& y, double tolerance) {
  ASSERT_EQ(x.size(), y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(y[i])) {
      ASSERT_TRUE(std::isnan(x[i])) << i << ": " << x[i];
    } else if (std::isinf(y[i])) {
      ASSERT_EQ(x[i], y[i]) << i;
    } else {
      ASSERT_NEAR(x[i], y[i], tolerance) << i;
    }
  }
}

void expect_as_reference(Case& c, double tolerance = 3e-6) {
  const Result expected = run(*make_reference_backend(), c);
  const Result result = run_on_cpu(c);
  expect_near(result.o, expected.o, tolerance);
  expect_near(result.lse, expected.lse, tolerance);
}

class CpuForward : public testing::TestWithParam<std::int64_t> {
 protected:
  ForcedTarget forced_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(EveryTarget, CpuForward, testing::ValuesIn(supported_targets()),
                         name_of_target);

TEST_P(CpuForward, PlansForTheTargetThatRuns) {
  const CpuCaps caps = detect_cpu(1);
  EXPECT_EQ(caps.target, instruction_set(GetParam()));
  EXPECT_EQ(caps.lanes, simd_lanes());
}

// All keys equal, so every weight is 1: the maximum and what it is subtracted from must round
// alike.
TEST_P(CpuForward, TakesScoresUpToTheEndOfF32) {
  for (const float size : {0x1p8F, 0x1p10F, 0x1p20F, 0x1p40F, 0x1.8p60F}) {
    for (const std::int64_t rows : {1, 40}) {
      for (const Causal causal : {Causal::none, Causal::top_left}) {
        Case c({.seqlen_q = rows, .seqlen_k = 50, .head_dim = 10, .head_dim_v = 8});
        c.p.causal = causal;
        std::ranges::fill(c.q, size);
        std::ranges::fill(c.k, -1.1F * size);
        const Result expected = run(*make_reference_backend(), c);
        const Result result = run_on_cpu(c);
        expect_near(result.o, expected.o, 3e-6);
        const double largest = std::fabs(static_cast<double>(expected.lse.back()));
        expect_near(result.lse, expected.lse, 4e-7 * largest);
      }
    }
  }
}

TEST_P(CpuForward, AgreesWithTheReference) {
  for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
    for (const std::int64_t rows : {1, 3, 9, 33, 70}) {
      for (const float softcap : {0.0F, 3.0F}) {
        Case c({.batch = 2,
                .num_heads = 4,
                .num_heads_kv = 2,
                .seqlen_q = rows,
                .seqlen_k = 77,
                .head_dim = 24,
                .head_dim_v = 19,
                .causal = causal,
                .window_left = rows == 33 ? 20 : -1,
                .softcap = softcap});
        expect_as_reference(c);
      }
    }
  }
}

TEST_P(CpuForward, SplitKeysAgreeWithTheReference) {
  for (const std::int64_t rows : {1, 20}) {
    Case c({.num_heads = 2,
            .num_heads_kv = 1,
            .seqlen_q = rows,
            .seqlen_k = 3000,
            .head_dim = 16,
            .head_dim_v = 40,
            .causal = Causal::bottom_right});
    ASSERT_GT(plan_forward(c.p, detect_cpu(1)).config.split_k, 1);
    expect_as_reference(c);
  }
}

TEST_P(CpuForward, NumbersThatAreNotFiniteStayInTheirRows) {
  for (const std::int64_t rows : {4, 50}) {
    Case c({.seqlen_q = rows,
            .seqlen_k = 90,
            .head_dim = 8,
            .head_dim_v = 21,
            .causal = Causal::bottom_right,
            .window_left = 60});
    c.v[(89 - 1) * 21 + 3] = nan;
    c.v[(89 - rows / 2) * 21 + 20] = infinity;
    c.q[1 * 8 + 2] = nan;
    expect_as_reference(c);
  }
}

TEST_P(CpuForward, NegativeScale) {
  Case c({.seqlen_q = 40, .seqlen_k = 200, .head_dim = 32, .head_dim_v = 32});
  c.p.scale = -0.7F;
  expect_as_reference(c, 1e-5);
}

// One row at a time is another kernel (lanes over dims) than many rows (lanes over rows).
TEST_P(CpuForward, DecodingAgreesWithPrefill) {
  Case all({.num_heads = 4,
            .num_heads_kv = 2,
            .seqlen_q = 60,
            .seqlen_k = 60,
            .head_dim = 40,
            .head_dim_v = 40,
            .causal = Causal::bottom_right});
  const Result prefill = run_on_cpu(all);
  for (const std::int64_t row : {0, 17, 59}) {
    Problem p = all.p;
    p.seqlen_q = 1;
    p.seqlen_k = row + 1;
    Case one(p);
    for (std::int64_t h = 0; h < 4; ++h) {
      std::copy_n(&all.q[(h * 60 + row) * 40], 40, &one.q[h * 40]);
      if (h % 2 != 0) continue;
      std::copy_n(&all.k[h / 2 * 60 * 40], (row + 1) * 40, &one.k[h / 2 * (row + 1) * 40]);
      std::copy_n(&all.v[h / 2 * 60 * 40], (row + 1) * 40, &one.v[h / 2 * (row + 1) * 40]);
    }
    EXPECT_EQ(plan_forward(p, detect_cpu(1)).config.kernel, "decode");
    const Result decoded = run_on_cpu(one);
    for (std::int64_t h = 0; h < 4; ++h) {
      EXPECT_NEAR(decoded.lse[h], prefill.lse[h * 60 + row], 2e-6);
      for (std::int64_t d = 0; d < 40; ++d) {
        EXPECT_NEAR(decoded.o[h * 40 + d], prefill.o[(h * 60 + row) * 40 + d], 2e-6);
      }
    }
  }
}

TEST(CpuForwardSizes, NoKeysNoRowsNoBatch) {
  for (const std::int64_t rows : {1, 40}) {
    Case c({.num_heads = 2,
            .num_heads_kv = 2,
            .seqlen_q = rows,
            .seqlen_k = 0,
            .head_dim = 8,
            .head_dim_v = 8});
    const Result result = run_on_cpu(c);
    for (const float x : result.o) EXPECT_EQ(x, 0.0F);
    for (const float x : result.lse) EXPECT_EQ(x, -infinity);
  }
  Case no_rows({.seqlen_q = 0, .seqlen_k = 5, .head_dim = 8, .head_dim_v = 8});
  EXPECT_TRUE(run_on_cpu(no_rows).o.empty());
  Case no_batch({.batch = 0, .seqlen_q = 5, .seqlen_k = 5, .head_dim = 8, .head_dim_v = 8});
  EXPECT_TRUE(run_on_cpu(no_batch).o.empty());
}

TEST(CpuForwardSizes, WidestHeads) {
  Case c({.seqlen_q = 70, .seqlen_k = 90, .head_dim = 1024, .head_dim_v = 1023});
  expect_as_reference(c, 1e-5);
}

// Rows of keys that lie a multiple of 4 KiB apart are copied before use.
TEST(CpuForwardSizes, StridesThatCollideInTheCache) {
  Problem p = {.num_heads = 16,
               .num_heads_kv = 16,
               .seqlen_q = 40,
               .seqlen_k = 70,
               .head_dim = 64,
               .head_dim_v = 64};
  Case c(p);
  const Strides bshd = {0, 64, 16 * 64, 1};
  std::vector<float> o[2];
  for (int i = 0; i < 2; ++i) {
    o[i].assign(c.q.size(), nan);
    const std::unique_ptr<Backend> backend =
        i == 0 ? make_reference_backend() : make_cpu_backend({});
    ForwardArgs args;
    args.q = {c.q.data(), bshd};
    args.k = {c.k.data(), bshd};
    args.v = {c.v.data(), bshd};
    args.o = {o[i].data(), bshd};
    backend->forward(backend->plan(c.p), args);
  }
  expect_near(o[1], o[0], 3e-6);
}

TEST(CpuForwardGrid, EveryRowOfEveryHeadIsInExactlyOneBlock) {
  for (const std::int64_t block_m : {1, 4, 16, 32, 64}) {
    for (const std::int64_t rows : {1, 2, 5, 16, 33, 100}) {
      for (const std::int64_t group : {1, 3, 8}) {
        const Problem p = {
            .batch = 2, .num_heads = 2 * group, .num_heads_kv = 2, .seqlen_q = rows, .seqlen_k = 9};
        const ForwardGrid grid = make_forward_grid(p, block_m, 1);
        std::vector<int> seen(static_cast<std::size_t>(2 * 2 * group * rows));
        for (std::int64_t i = 0; i < grid.blocks; ++i) {
          const RowBlock b = row_block(p, grid, block_m, i);
          ASSERT_LE(b.lanes(), std::max(block_m, std::min(block_m, rows)));
          ASSERT_EQ(b.head / group, (b.head + b.heads - 1) / group);
          for (std::int64_t h = b.head; h < b.head + b.heads; ++h) {
            for (std::int64_t r = b.row; r < b.row + b.rows; ++r)
              ++seen[(b.batch * 2 * group + h) * rows + r];
          }
        }
        ASSERT_EQ(std::count(seen.begin(), seen.end(), 1), std::ssize(seen));
      }
    }
  }
}

TEST(CpuPlan, DoublePrecisionIsRefusedWithTheReason) {
  Problem p = {.seqlen_q = 4, .seqlen_k = 4, .head_dim = 4, .head_dim_v = 4};
  p.q = Dtype::f64;
  try {
    plan_cpu(p, detect_cpu(1));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::unsupported);
    EXPECT_STREQ(
        error.what(),
        "unsupported: dtype f64: device cpu computes f32, f16 and bf16; device reference does f64");
  }
}

TEST(CpuPlan, ResultsDoNotDependOnThreads) {
  Case c({.num_heads = 2,
          .num_heads_kv = 2,
          .seqlen_q = 200,
          .seqlen_k = 1100,
          .head_dim = 64,
          .head_dim_v = 64,
          .causal = Causal::bottom_right});
  const Result one = run_on_cpu(c, 1);
  for (const int threads : {2, 5}) {
    const Result many = run_on_cpu(c, threads);
    EXPECT_EQ(one.o, many.o);
    EXPECT_EQ(one.lse, many.lse);
  }
}

}  // namespace
}  // namespace ingot
