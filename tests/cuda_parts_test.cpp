// Parts of the CUDA back end's host code that need no driver at all.
#include <gtest/gtest.h>

#include <limits>

#include "core/error.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/host_tensors.hpp"
#include "cuda/plan_parts.hpp"
#include "cuda/tuned_table.hpp"

namespace ingot {
namespace {

TEST(CudaTunedTable, RowsOfThisGpuTakePrecedence) {
  using cuda::TunedTable;
  cuda::Config config;
  config.kernel = "forward_sm90";
  config.head_dim = 128;
  config.warpgroups = 2;
  const TunedTable table = TunedTable::parse(
      "# a comment\n\n"
      "Other GPU | forward_sm90 head_dim=128 | block_n=96 |\n"
      "Fake GPU | forward_sm90 head_dim=128 masked=true | block_n=80 |\n"
      "Fake GPU | forward_sm90 head_dim=128 masked=false | block_n=64 |\n"
      "Fake GPU | forward_sm90 head_dim=128 masked=false | block_n=160 warpgroups=3 ordered=true | "
      "700 TFLOP/s\n",
      "Fake GPU");
  ASSERT_EQ(table.complaint(), "");
  EXPECT_TRUE(table.apply(config));
  EXPECT_EQ(config.block_n, 160);
  EXPECT_EQ(config.block_m, 192);
  EXPECT_TRUE(config.ordered);
  config.head_dim = 64;
  EXPECT_FALSE(table.apply(config));
  const auto complaint = [](const char* row) { return TunedTable::parse(row, "X").complaint(); };
  EXPECT_EQ(complaint("X | forward_sm90 | block_n=24"),
            "line 1: block_n must be a multiple of 16 from 16 to 256, is 24");
  EXPECT_EQ(complaint("\nX | forward_sm90 | planes=2"), "line 2: a row cannot set planes");
  EXPECT_EQ(complaint("X | forward_sm90 | block_n"), "line 1: must be name=value: block_n");
  EXPECT_EQ(complaint("nonsense"), "line 1: must be GPU | kernel fields | fields");
}

Problem problem_with_parts() {
  Problem p;
  p.num_heads = p.num_heads_kv = 4;
  p.seqlen_q = p.seqlen_k = 4096;
  p.head_dim = p.head_dim_v = 128;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = Dtype::bf16;
  p.parts.alibi = p.parts.bias = p.parts.sinks = true;
  p.parts.bias_shape = {1, 4, 1, 4096};
  return p;
}

TEST(CudaVariantPlan, PartsRunForwardOnHopperAndBackwardInTheKernelsOfTheSm80Family) {
  const cuda::DeviceCaps hopper{90, 132, 232448, 0, "H200"};
  const Plan plan = cuda::plan_cuda(problem_with_parts(), hopper, "cuda:0");
  EXPECT_EQ(plan.forward.config.kernel, "forward_sm90");
  std::vector<std::string> files;
  for (const KernelPlan& kernel : plan.backward.kernels) files.push_back(kernel.file);
  const std::vector<std::string> want = {
      "cuda/kernels/delta.cuh", "cuda/kernels/backward_dq.cuh", "cuda/kernels/backward_dkv.cuh",
      "cuda/kernels/backward_dbias.cuh", "cuda/kernels/backward_dsinks.cuh"};
  EXPECT_EQ(files, want);
  // A tile for each head and 32 keys; a block for each head.
  EXPECT_EQ(plan.backward.kernels[3].grid[0], 4 * 4096 / 32);
  EXPECT_EQ(plan.backward.kernels[4].grid[0], 4);
}

TEST(CudaVariantPlan, OneNumberForTooManyPairsIsRefused) {
  const cuda::DeviceCaps hopper{90, 132, 232448, 0, "H200"};
  Problem p = problem_with_parts();
  p.num_heads = p.num_heads_kv = 1;
  p.parts.bias_shape = {1, 1, 1, 1};
  p.seqlen_q = p.seqlen_k = std::int64_t{1} << 22;
  try {
    cuda::plan_cuda(p, hopper, "cuda:0");
    FAIL() << "there is a plan";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::unsupported);
    EXPECT_STREQ(error.what(),
                 "unsupported: a bias that is one number for 4194304 queries and 4194304 keys: at "
                 "most 2^31 tiles may be added up");
  }
}

/// Heads of k at once, for tiles that fill rounds of multiprocessors.
std::int64_t heads_at_once(std::int64_t heads, std::int64_t tiles, std::int64_t multiprocessors,
                           std::int64_t limit) {
  Problem p;
  p.num_heads = p.num_heads_kv = heads;
  p.seqlen_q = p.seqlen_k = 128;
  p.workspace_limit = limit;
  cuda::ChunkNeeds needs;
  needs.tiles_of_head = tiles;
  needs.multiprocessors = multiprocessors;
  return cuda::cut_chunks(p, needs, {})->heads_kv_at_once;
}

TEST(CudaChunks, HeadsNeedTheFewestRoundsOfAllChoices) {
  const std::int64_t bytes_of_head = 2 * 128 * 128, heads = 200;
  for (const std::int64_t multiprocessors : {1, 7, 132}) {
    for (std::int64_t tiles = 1; tiles < 60; tiles += 4) {
      const auto rounds = [&](std::int64_t n) {
        const auto of = [&](std::int64_t h) { return cuda::ceil_div(h * tiles, multiprocessors); };
        return heads / n * of(n) + of(heads % n);
      };
      for (const std::int64_t most : {1, 5, 131, 132, 133, 150, 199, 200}) {
        std::int64_t best = most;  // the largest of those
        for (std::int64_t n = most; n > 0; --n) best = rounds(n) < rounds(best) ? n : best;
        EXPECT_EQ(heads_at_once(heads, tiles, multiprocessors, most * bytes_of_head), best)
            << tiles << " tiles, at most " << most << " on " << multiprocessors;
      }
    }
  }
}

TEST(CudaChunks, AnyProblemIsCutAtOnce) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max(), large = 1LL << 40;
  EXPECT_EQ(heads_at_once(large, 3, 132, most), large);
  Problem p;
  for (const std::int64_t rows : {std::int64_t{0}, std::int64_t{1}, large}) {
    for (const std::int64_t keys : {std::int64_t{0}, std::int64_t{1}, large}) {
      for (const std::int64_t limit : {std::int64_t{1}, large, most}) {
        p.seqlen_q = rows, p.seqlen_k = keys, p.workspace_limit = limit;
        p.batch = keys == large ? 0 : 1;
        cuda::ChunkNeeds needs;
        needs.per_head = rows;
        const auto chunks = cuda::cut_chunks(p, needs, {});
        EXPECT_LE(chunks ? chunks->matrix_bytes : 0, limit) << rows << " " << keys;
      }
    }
  }
}

TEST(CudaTensors, SpansHoldEveryElement) {
  using cuda::span_of;
  EXPECT_EQ(span_of({2, 3, 4, 5}, {60, 20, 5, 1}, 2).bytes, 240);
  const cuda::Span reversed = span_of({1, 1, 4, 5}, {0, 0, -8, 1}, 4);
  EXPECT_EQ(reversed.bytes, (3 * 8 + 5) * 4);
  EXPECT_EQ(reversed.origin, 3 * 8 * 4);
  EXPECT_EQ(span_of({1, 0, 4, 5}, {0, 0, 5, 1}, 4).bytes, 0);
  EXPECT_EQ(span_of({1, 8, 1, 5}, {0, 0, 5, 1}, 4).bytes, 20);
}

}  // namespace
}  // namespace ingot
