// The tables of the Metal backward kernels: every head_dim has a shape that the GPU can hold.
#include <gtest/gtest.h>

#include "metal/tuning_backward.hpp"

namespace ingot::metal {
namespace {

constexpr Dtype dtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};

Problem problem_of(std::int64_t seqlen, std::int64_t head_dim, std::int64_t head_dim_v,
                   Dtype dtype) {
  Problem p;
  p.num_heads = 6;
  p.num_heads_kv = 2;
  p.seqlen_q = p.seqlen_k = seqlen;
  p.head_dim = head_dim;
  p.head_dim_v = head_dim_v;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = dtype;
  return p;
}

DeviceCaps caps_of(int family) {
  DeviceCaps caps;
  caps.family = family;
  return caps;
}

/// 32-bit registers a thread may have where a core is to hold one threadgroup of so many threads:
/// metal-benchmarks, M1.
std::int64_t register_limit(std::int64_t threads) {
  return threads <= 384 ? 128 : threads <= 448 ? 116 : threads <= 512 ? 104 : 0;
}

void expect_fits(const BackwardKernel& kernel, const std::string& where) {
  const Config& c = kernel.config;
  EXPECT_LE(backward_registers_estimate(c), register_limit(kernel.threads)) << where;
  EXPECT_LE(kernel.threadgroup_bytes, 32768) << where;
  EXPECT_EQ(kernel.threads, 32 * c.simdgroups) << where;
  EXPECT_EQ(c.rows_per_simdgroup % 8, 0) << where;
  EXPECT_EQ(c.block_m * column_splits(c), c.rows_per_simdgroup * c.simdgroups) << where;
  EXPECT_EQ(c.block_n % (8 * column_splits(c)), 0) << where;
  if (!c.stage_rhs) return;
  EXPECT_EQ(c.block_d % 8, 0) << where;
  EXPECT_GE(wide_rows(c), 8) << where;
  EXPECT_EQ(c.block_dv % (8 * column_splits(c)), 0) << where;
  EXPECT_EQ(wide_rows(c) % 8, 0) << where;
  EXPECT_EQ(c.block_n % wide_rows(c), 0) << where;
  const bool one_slab = c.block_d >= c.head_dim && c.block_d >= c.head_dim_v;
  EXPECT_TRUE(one_slab || c.block_d % (8 * c.panel) == 0) << where;
}

TEST(MetalBackwardTuning, EveryShapeFitsTheRegistersAndTheThreadgroupMemory) {
  for (const int family : {7, 8, 9, 10}) {
    for (const Dtype dtype : dtypes) {
      for (std::int64_t dim = 1; dim <= 1024; ++dim) {
        const std::string where = "family " + std::to_string(family) + " " +
                                  std::string(name(dtype)) + " head_dim " + std::to_string(dim);
        for (const std::int64_t dim_v : {dim, 1025 - dim}) {
          const BackwardChoice choice =
              choose_backward(problem_of(700, dim, dim_v, dtype), caps_of(family));
          expect_fits(choice.dq, where + " dq");
          expect_fits(choice.dkv, where + " dkv");
        }
      }
    }
  }
}

TEST(MetalBackwardTuning, GridsCoverBothSequences) {
  const Problem p = problem_of(1000, 64, 64, Dtype::f16);
  const BackwardChoice choice = choose_backward(p, caps_of(7));
  EXPECT_GE(choice.delta.grid[0] * choice.delta.config.block_m, p.seqlen_q);
  EXPECT_EQ(choice.delta.config.block_m * 8, choice.delta.threads);
  EXPECT_GE(choice.dq.grid[0] * choice.dq.config.block_m, p.seqlen_q);
  EXPECT_LT((choice.dq.grid[0] - 1) * choice.dq.config.block_m, p.seqlen_q);
  EXPECT_GE(choice.dkv.grid[0] * choice.dkv.config.block_m, p.seqlen_k);
  EXPECT_EQ(choice.dq.grid[1], p.num_heads);
  EXPECT_EQ(choice.dkv.grid[1], p.num_heads_kv);
}

TEST(MetalBackwardTuning, LengthsDoNotChangeTheKernels) {
  for (const Causal causal : {Causal::none, Causal::bottom_right}) {
    Problem p = problem_of(700, 128, 128, Dtype::f16);
    p.causal = causal;
    const BackwardChoice first = choose_backward(p, caps_of(9));
    for (const std::int64_t length : {17, 64, 1000, 100000}) {
      p.seqlen_q = p.seqlen_k = length;
      const BackwardChoice other = choose_backward(p, caps_of(9));
      EXPECT_EQ(other.dq.config, first.dq.config) << length;
      EXPECT_EQ(other.dkv.config, first.dkv.config) << length;
      EXPECT_EQ(other.delta.config, first.delta.config) << length;
    }
  }
}

TEST(MetalBackwardTuning, GradientsOfScoresKeepTheRangeOfF32) {
  for (const int family : {7, 9}) {
    const BackwardChoice f16 = choose_backward(problem_of(70, 64, 64, Dtype::f16), caps_of(family));
    EXPECT_EQ(f16.dq.config.ds_reg.name, "float");
    EXPECT_EQ(f16.dkv.config.ds_reg.name, "float");
    EXPECT_EQ(f16.dkv.config.pv_reg.name, "half");
    const BackwardChoice bf16 =
        choose_backward(problem_of(70, 64, 64, Dtype::bf16), caps_of(family));
    EXPECT_EQ(bf16.dq.config.ds_reg.name, family >= 9 ? "bfloat" : "float");
    EXPECT_EQ(bf16.dq.config.q_type.name, family >= 9 ? "bfloat" : "ushort");
  }
}

}  // namespace
}  // namespace ingot::metal
