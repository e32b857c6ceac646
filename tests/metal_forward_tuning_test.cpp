// The tables of the Metal forward kernels: every head_dim has a shape that the GPU can hold.
#include <gtest/gtest.h>

#include "algorithm/score.h"
#include "metal/tuning.hpp"

namespace ingot::metal {
namespace {

constexpr Dtype dtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};

Problem problem_of(std::int64_t seqlen, std::int64_t head_dim, std::int64_t head_dim_v,
                   Dtype dtype) {
  Problem p;
  p.seqlen_q = p.seqlen_k = seqlen;
  p.head_dim = head_dim;
  p.head_dim_v = head_dim_v;
  p.q = p.k = p.v = p.o = dtype;
  return p;
}

DeviceCaps caps_of(int family) {
  DeviceCaps caps;
  caps.family = family;
  caps.cores = 10;
  return caps;
}

/// Registers a thread may have where a core is to hold one threadgroup of so many threads: 208 KB.
std::int64_t register_limit(std::int64_t threads) {
  return threads <= 384 ? 128 : threads <= 448 ? 116 : threads <= 512 ? 104 : 0;
}

void expect_fits(const ForwardChoice& choice, const std::string& where) {
  const Config& c = choice.config;
  EXPECT_LE(registers_estimate(c), register_limit(choice.threads)) << where;
  EXPECT_LE(threadgroup_bytes(c), 32768) << where;
  EXPECT_EQ(choice.threads, 32 * c.simdgroups) << where;
  EXPECT_EQ(c.rows_per_simdgroup % 8, 0) << where;
  const bool wide = c.kernel == "forward_wide" || c.kernel == "decode_wide";
  EXPECT_EQ(c.block_n % (wide ? 8 * c.simdgroups : 8), 0) << where;
  EXPECT_GE(wide ? c.block_dv * c.simdgroups : c.block_dv, c.head_dim_v) << where;
  if (wide) {
    EXPECT_LT(c.block_dv * (c.simdgroups - 1), c.head_dim_v) << where;
  }
  const bool one_slab = c.block_d >= c.head_dim && c.block_d >= c.head_dim_v;
  EXPECT_TRUE(one_slab || c.block_d % (8 * c.panel) == 0) << where;
}

TEST(MetalForwardTuning, EveryShapeFitsTheRegistersAndTheThreadgroupMemory) {
  for (const int family : {7, 8, 9, 10}) {
    for (const Dtype dtype : dtypes) {
      for (std::int64_t dim = 1; dim <= 1024; ++dim) {
        const std::string where = "family " + std::to_string(family) + " " +
                                  std::string(name(dtype)) + " head_dim " + std::to_string(dim);
        expect_fits(choose_forward(problem_of(700, dim, dim, dtype), caps_of(family)), where);
        Problem p = problem_of(700, dim, dim, dtype);
        p.seqlen_q = dim % 16 + 1;
        expect_fits(choose_forward(p, caps_of(family)), "decode " + where);
        p = problem_of(700, 1025 - dim, dim, dtype);
        expect_fits(choose_forward(p, caps_of(family)), "head_dim_v " + where);
      }
    }
  }
}

TEST(MetalForwardTuning, AHeadDimThatIsNoMultipleOf8CostsWhatTheNextOneCosts) {
  for (const int family : {7, 9}) {
    for (const Dtype dtype : dtypes) {
      for (const std::int64_t dim : {33, 36, 59, 100, 250, 500, 1001}) {
        const std::int64_t next = (dim + 7) / 8 * 8;
        const Config a = choose_forward(problem_of(700, dim, dim, dtype), caps_of(family)).config;
        Config b = choose_forward(problem_of(700, next, next, dtype), caps_of(family)).config;
        if (b.block_dv == next) b.block_dv = dim;
        b.head_dim = b.head_dim_v = dim;
        EXPECT_EQ(a, b) << "family " << family << " head_dim " << dim;
      }
    }
  }
}

TEST(MetalForwardTuning, LengthsDoNotChangeTheKernel) {
  for (const Causal causal : {Causal::none, Causal::bottom_right}) {
    Problem p = problem_of(700, 128, 128, Dtype::f16);
    p.causal = causal;
    const Config first = choose_forward(p, caps_of(9)).config;
    for (const std::int64_t length : {17, 64, 1000, 100000}) {
      p.seqlen_q = p.seqlen_k = length;
      EXPECT_EQ(choose_forward(p, caps_of(9)).config, first) << length;
    }
    p.seqlen_q = 1;
    p.seqlen_k = 300;
    const Config decode = choose_forward(p, caps_of(9)).config;
    p.seqlen_k = 50000;
    EXPECT_EQ(choose_forward(p, caps_of(9)).config, decode);
  }
}

TEST(MetalForwardTuning, TheSplitsOfADecodeHoldEveryVisibleKey) {
  for (const std::int64_t dim : {64, 256}) {
    for (const std::int64_t seqlen_q : {1, 5, 16}) {
      for (const std::int64_t seqlen_k : {256, 257, 1000, 4097, 70000}) {
        for (const std::int64_t window : {-1, 300, 1111}) {
          Problem p = problem_of(seqlen_k, dim, dim, Dtype::bf16);
          p.seqlen_q = seqlen_q;
          p.num_heads = 8;
          p.num_heads_kv = 2;
          p.causal = Causal::bottom_right;
          p.window_left = window;
          const ForwardChoice choice = choose_forward(p, caps_of(7));
          const ScoreParams score =
              make_score_params(p.scale, p.softcap, seqlen_q, seqlen_k, 2, window, p.window_right);
          const std::int64_t begin =
              col_begin(score, 0) / choice.config.block_n * choice.config.block_n;
          const std::int64_t end = col_end(score, seqlen_q - 1);
          ASSERT_GE(choice.splits, 2) << seqlen_k;
          EXPECT_EQ(choice.split_length % choice.config.block_n, 0);
          EXPECT_GE(begin + choice.splits * choice.split_length, end) << seqlen_k;
          EXPECT_GE(choice.row_blocks * choice.config.rows_per_simdgroup, 4 * seqlen_q);
          EXPECT_EQ(choice.combine.kernel, "combine");
        }
      }
    }
  }
}

TEST(MetalForwardTuning, Bfloat16IsNativeFromFamily9OnAndItsBitsBefore) {
  EXPECT_EQ(memory_type(Dtype::bf16, 8).name, "ushort");
  EXPECT_EQ(memory_type(Dtype::bf16, 9).name, "bfloat");
  EXPECT_EQ(register_type(Dtype::bf16, Dtype::bf16, 7).name, "float");
  EXPECT_EQ(register_type(Dtype::bf16, Dtype::bf16, 9).name, "bfloat");
  EXPECT_EQ(register_type(Dtype::f16, Dtype::bf16, 9).name, "float");
}

}  // namespace
}  // namespace ingot::metal
