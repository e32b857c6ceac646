// The Hopper kernels: what their table may ask of the hardware, for every head; and, on such a GPU,
// rows of problems that reach each of them (cases.hpp has mostly smaller ones).
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "conformance.hpp"
#include "cuda/tuning.hpp"
#include "devices.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t most_shared = 232448;

DeviceCaps hopper() {
  DeviceCaps caps;
  caps.sm = 90;
  caps.sm_count = 132;
  caps.shared_bytes = most_shared;
  return caps;
}

Problem problem_of(Dtype dtype, std::int64_t dim, std::int64_t dim_v) {
  Problem p;
  p.num_heads = 16, p.num_heads_kv = 4;
  p.seqlen_q = p.seqlen_k = 4096;
  p.head_dim = dim, p.head_dim_v = dim_v;
  p.q = p.k = p.v = p.o = dtype;
  return p;
}

/// Registers of a thread that hold scores, weights and O, all live at once.
std::int64_t accumulators(const Config& c) {
  const std::int64_t columns = (c.head_dim_v + 15) / 16 * 16;
  if (c.wide) return std::min<std::int64_t>(columns, 256) / 2;
  const std::int64_t sums = c.planes > 1 ? columns : columns / 2;
  return c.block_n / 2 + c.planes * c.block_n / 4 + sums;
}

TEST(CudaForwardSm90, TilesFitTheMultiprocessor) {
  std::string why_not;
  for (std::int64_t dim = 1; dim <= 512; ++dim) {
    for (const Causal causal : {Causal::none, Causal::top_left}) {
      Problem p = problem_of(Dtype::bf16, dim, dim);
      p.causal = causal;
      const auto c = choose_sm90(p, hopper(), why_not);
      ASSERT_TRUE(c) << dim << ": " << why_not;
      EXPECT_LE(needs_sm90(*c).shared_bytes, most_shared) << dim;
      EXPECT_LE(needs_sm90(*c).threads, 512) << dim;
      EXPECT_EQ(c->block_n % 16, 0) << dim;
      EXPECT_EQ(c->block_n % c->cluster, 0) << dim;
      EXPECT_LE(accumulators(*c), c->warpgroups == 2 ? 216 : 136) << dim;
    }
  }
}

TEST(CudaForwardSm90, LatentAndSplitHeadsFit) {
  std::string why_not;
  const Problem problems[] = {problem_of(Dtype::bf16, 192, 128), problem_of(Dtype::f16, 576, 512),
                              problem_of(Dtype::bf16, 64, 512),  problem_of(Dtype::f32, 64, 64),
                              problem_of(Dtype::f32, 128, 128),  problem_of(Dtype::f32, 16, 128)};
  for (const Problem& p : problems) {
    const auto c = choose_sm90(p, hopper(), why_not);
    ASSERT_TRUE(c) << p.head_dim << ": " << why_not;
    EXPECT_LE(needs_sm90(*c).shared_bytes, most_shared) << p.head_dim;
    EXPECT_LE(accumulators(*c), c->warpgroups == 2 ? 216 : 136) << p.head_dim;
  }
}

TEST(CudaForwardSm90, HighPrecisionOfF32TakesTwoTerms) {
  std::string why_not;
  for (const std::int64_t dim : {64, 128}) {
    Problem p = problem_of(Dtype::f32, dim, dim);
    EXPECT_EQ(choose_sm90(p, hopper(), why_not)->planes, 3);
    p.precision = Precision::high;
    const auto c = choose_sm90(p, hopper(), why_not);
    ASSERT_TRUE(c) << why_not;
    EXPECT_EQ(c->planes, 2);
    EXPECT_LE(needs_sm90(*c).shared_bytes, most_shared) << dim;
    p.q = p.k = p.v = Dtype::bf16;
    EXPECT_EQ(choose_sm90(p, hopper(), why_not)->planes, 1);
  }
}

TEST(CudaForwardSm90, SaysWhyNot) {
  const auto reason = [](const Problem& p, int sm = 90) {
    DeviceCaps caps = hopper();
    caps.sm = sm;
    std::string why_not;
    EXPECT_FALSE(choose_sm90(p, caps, why_not));
    return why_not;
  };
  Problem p = problem_of(Dtype::bf16, 64, 64);
  EXPECT_EQ(reason(p, 80), "this device has no warpgroup products");
  p.k = Dtype::f16;
  EXPECT_EQ(reason(p), "q, k and v must have one dtype");
  EXPECT_EQ(reason(problem_of(Dtype::bf16, 640, 640)), "a head is wider than 512");
  EXPECT_EQ(reason(problem_of(Dtype::f32, 192, 64)), "a head of f32 is wider than 128");
  p = problem_of(Dtype::bf16, 64, 64);
  p.seqlen_q = 1;
  EXPECT_EQ(reason(p), "few query rows");
}

TEST(CudaForwardSm90, HeadsShareTilesThatTheirRowsWouldLeaveEmpty) {
  std::string why_not;
  const auto is_packed = [&](const Problem& p) {
    const auto config = choose_sm90(p, hopper(), why_not);
    return config.has_value() && config->packed;
  };
  Problem p = problem_of(Dtype::bf16, 128, 128);
  p.batch = 16;
  EXPECT_FALSE(is_packed(p));
  p.seqlen_q = 32;
  EXPECT_TRUE(is_packed(p));
  p.num_heads = 12;  // groups of 3 do not divide the rows of a warpgroup
  EXPECT_FALSE(is_packed(p));
  p.seqlen_q = 100;
  EXPECT_FALSE(is_packed(p));
  p.batch = p.num_heads_kv = 1;
  EXPECT_FALSE(choose_sm90(p, hopper(), why_not));
  EXPECT_EQ(why_not, "few tiles: their keys are split");
}

using conformance::Case;
using conformance::Data;
using conformance::Row;

std::vector<Case> gpu_cases() {
  conformance::Table table(true);
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const std::int64_t dim : {24, 72, 96, 128, 192, 256, 320, 368, 384, 512}) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 130, row.k = 301, row.d = dim, row.in = INGOT_BF16;
    row.layout = conformance::Layout::bshd;
    add(row);
    row.in = INGOT_F16, row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 70, row.softcap = 20;
    add(row);
  }
  for (const auto& [dim, dim_v] : {std::pair{192, 128}, {576, 512}, {64, 256}, {128, 24}}) {
    Row row;
    row.heads = 8, row.heads_kv = 2, row.q = 40, row.k = 501, row.in = INGOT_BF16;  // packed
    row.d = dim, row.dv = dim_v;
    add(row);
    row.causal = INGOT_CAUSAL_TOP_LEFT, row.out = INGOT_F32;
    add(row);
  }
  for (const std::int64_t dim : {64, 128}) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 1000, row.k = 65536 / dim + 3, row.d = dim;
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.softcap = 10;
    add(row);
    row.softcap = 0, row.data = dim == 64 ? Data::inf_k : Data::nan_v;
    add(row);
    row.precision = INGOT_PRECISION_HIGH;
    add(row);
    row.data = Data::normal;
    add(row);
    row.softcap = 10, row.causal = INGOT_CAUSAL_NONE;
    add(row);
  }
  return table.take();
}

class CudaForwardSm90OnGpu : public testing::TestWithParam<Case> {};

TEST_P(CudaForwardSm90OnGpu, AgreesWithReference) {
  ingot_context* const context = conformance::shared_context();
  const std::vector<std::string> devices = conformance::device_names(context);
  if (std::find(devices.begin(), devices.end(), "cuda:0") == devices.end()) {
    GTEST_SKIP() << "skipped: no NVIDIA GPU";
  }
  const conformance::Outcome outcome = conformance::run_case(context, "cuda:0", GetParam());
  EXPECT_EQ(outcome.status, conformance::Status::passed) << outcome.message;
}

std::string test_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Table, CudaForwardSm90OnGpu, testing::ValuesIn(gpu_cases()), test_name);

}  // namespace
}  // namespace ingot::cuda
