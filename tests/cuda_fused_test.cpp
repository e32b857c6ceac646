// The fused backward pass for Hopper: how the workspace is cut, why it is not taken, and, on such a
// GPU, rows of problems that take it (cases.hpp has mostly smaller ones) and the same bits again
// and again.
#include "cuda_backward.hpp"

namespace ingot::cuda {
namespace {

TEST(CudaFused, TakesNarrowHeads) {
  for (std::int64_t dim = 1; dim <= 64; ++dim) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
      const auto detail = detail_of(hopper_problem(dtype, dim, 65 - dim));
      ASSERT_TRUE(detail->fused) << dim;
      EXPECT_FALSE(detail->stored || detail->unfused) << dim;
      EXPECT_LE(detail->fused->step.launch.shared_bytes, most_shared) << dim;
      EXPECT_EQ(detail->fused->step.launch.threads, 512) << dim;
    }
  }
  EXPECT_FALSE(detail_of(hopper_problem(Dtype::bf16, 65, 64))->fused);
  EXPECT_FALSE(detail_of(hopper_problem(Dtype::bf16, 64, 65))->fused);
}

TEST(CudaFused, SaysWhyNot) {
  const auto reason = [](const Problem& p) {
    BackwardDetail detail;
    detail.statistics.emplace();
    std::string why_not;
    EXPECT_FALSE(plan_fused(p, detail, why_not));
    return why_not;
  };
  EXPECT_EQ(reason(hopper_problem(Dtype::bf16, 72, 64)), "a head is wider than 64");
  EXPECT_EQ(reason(hopper_problem(Dtype::f32, 64, 64)), "dtype f32");
  Problem p = hopper_problem(Dtype::bf16, 64, 64);
  p.seqlen_q = 63;
  EXPECT_EQ(reason(p), "few query rows");
}

TEST(CudaFused, TheWorkspaceHoldsGroupsOfHeadsAndKeepsItsLimit) {
  Problem p = hopper_problem(Dtype::bf16, 64, 64, 8192);  // 8 MB of sums a kv head
  p.batch = 2;
  const auto heads_at_once = [&] {
    const Plan plan = plan_cuda(p, hopper(), "cuda:0");
    const auto& detail = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
    if (!detail.fused) return std::int64_t{0};
    EXPECT_LE(plan.backward.workspace_bytes, static_cast<std::size_t>(p.workspace_limit));
    EXPECT_EQ(detail.fused->key_blocks, 64);
    EXPECT_EQ(detail.fused->step.launch.grid[0], 64 * detail.fused->heads_kv_at_once);
    EXPECT_LE(detail.fused->heads_in_turn, detail.fused->heads_kv_at_once);
    return detail.fused->heads_kv_at_once;
  };
  EXPECT_EQ(heads_at_once(), 8);
  p.workspace_limit = 30 << 20;
  EXPECT_EQ(heads_at_once(), 3);
  p.workspace_limit = 8 << 20;
  EXPECT_EQ(heads_at_once(), 0);
}

TEST(CudaFused, ExplainNamesTheForm) {
  const Plan plan = plan_cuda(hopper_problem(Dtype::bf16, 64, 64), hopper(), "cuda:0");
  ASSERT_EQ(plan.backward.kernels.size(), 2U);
  EXPECT_EQ(plan.backward.kernels[1].file, "cuda/kernels/backward_fused_sm90.cuh");
  EXPECT_EQ(plan.backward.why[0].substr(0, 27), "fused: backward_fused_sm90 ");
}

using conformance::Case;
using conformance::Data;
using conformance::Layout;
using conformance::Row;

// Chains of blocks that wait for one another: many key blocks on one query block, one on many,
// many heads, heads of a group, and masks that make the ends of chains differ.
void add_chains(conformance::Table& table) {
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const auto& [q, k] : {std::pair{64, 2500}, {70, 128}, {1000, 40}, {129, 1}, {700, 700}}) {
    for (const ingot_causal causal : conformance::all_causals) {
      Row row;
      row.heads = 6, row.heads_kv = 2, row.q = q, row.k = k, row.d = 64, row.in = INGOT_BF16;
      row.causal = causal;
      add(row);
      row.left = 100, row.right = causal == INGOT_CAUSAL_NONE ? 30 : -1;
      add(row);
    }
  }
  Row row;
  row.q = 600, row.k = 500, row.d = 64, row.in = INGOT_F16, row.left = 0;  // last keys first
  add(row);
  row.left = -1, row.right = 0;
  add(row);
  row.batch = 3, row.heads = 40, row.heads_kv = 20, row.q = 200, row.k = 300;
  add(row);
}

void add_rest(conformance::Table& table) {
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const auto& [dim, dim_v] :
       {std::pair{64, 64}, {8, 8}, {16, 64}, {64, 8}, {40, 24}, {56, 48}}) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 200, row.k = 461, row.d = dim, row.dv = dim_v;
    row.in = INGOT_BF16, row.layout = Layout::bshd;
    add(row);
    row.in = INGOT_F16, row.softcap = 20;
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 170, row.grad = INGOT_F32;
    add(row);
  }
  for (int i = static_cast<int>(Data::negative_logits); i <= static_cast<int>(Data::nan_dout);
       ++i) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 300, row.k = 280, row.d = 64, row.in = INGOT_BF16;
    row.data = static_cast<Data>(i);
    add(row);
    row.causal = INGOT_CAUSAL_TOP_LEFT, row.left = 90, row.in = INGOT_F16;
    add(row);
  }
  for (const Layout layout : {Layout::packed_qkv, Layout::page_rows, Layout::broadcast_heads}) {
    Row row;
    row.batch = 2, row.heads = 4, row.heads_kv = 4, row.q = 140, row.k = 140, row.d = 64;
    row.in = INGOT_BF16, row.layout = layout;
    add(row);
  }
}

std::vector<Case> gpu_cases() {
  conformance::Table table(true);
  add_chains(table);
  add_rest(table);
  return table.take();
}

class CudaFusedOnGpu : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "skipped: no NVIDIA GPU";
  }
};

TEST_P(CudaFusedOnGpu, AgreesWithReference) { expect_agreement_on_gpu(GetParam()); }

std::string test_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Table, CudaFusedOnGpu, testing::ValuesIn(gpu_cases()), test_name);

using CudaFusedRepeated = CudaFusedOnGpu;

/// What a backward pass gave, byte by byte.
std::vector<std::vector<std::byte>> gradients(const conformance::Operands& t) {
  std::vector<std::vector<std::byte>> all;
  for (const conformance::Operand* x : {&t.dq, &t.dk, &t.dv}) {
    all.push_back(x->buffer->bytes());
  }
  return all;
}

TEST_P(CudaFusedRepeated, GivesTheSameBitsFiftyTimes) {
  const Case& c = GetParam();
  const ingot_problem p = conformance::resolved(c.problem);
  conformance::Outcome outcome;
  const conformance::PlanHandle plan =
      conformance::make_plan(conformance::shared_context(), "cuda:0", p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  const conformance::Operands t(p, c.layout);
  conformance::fill(t, p, c);
  ASSERT_EQ(conformance::run(plan.get(), t, false), "");
  const auto first = gradients(t);
  for (int i = 1; i < 50; ++i) {
    ASSERT_EQ(conformance::run(plan.get(), t, false), "");
    ASSERT_TRUE(gradients(t) == first) << "run " << i;
  }
}

std::vector<Case> repeated_cases() {
  conformance::Table table(true);
  for (const ingot_causal causal : {INGOT_CAUSAL_NONE, INGOT_CAUSAL_BOTTOM_RIGHT}) {
    Row row;
    row.heads = 8, row.heads_kv = 4, row.q = 2050, row.k = 2200, row.d = 64, row.in = INGOT_BF16;
    row.causal = causal;
    table.add(conformance::Tier::full, row);
  }
  return table.take();
}

INSTANTIATE_TEST_SUITE_P(Table, CudaFusedRepeated, testing::ValuesIn(repeated_cases()), test_name);

}  // namespace
}  // namespace ingot::cuda
