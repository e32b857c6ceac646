// The unfused backward pass for Hopper: what its tables may ask of the hardware, how the workspace
// is cut, and, on such a GPU, rows of problems that take it (cases.hpp has mostly smaller ones).
#include "cuda_backward.hpp"

namespace ingot::cuda {
namespace {

TEST(CudaUnfused, TilesFitTheMultiprocessor) {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
    for (std::int64_t dim = dtype == Dtype::f32 ? 8 : 257; dim <= 1024; dim += 8) {
      for (const float softcap : {0.0F, 10.0F}) {
        Problem p = hopper_problem(dtype, dim, dim / 2 + 1);
        p.softcap = softcap;
        const auto detail = detail_of(p);
        ASSERT_TRUE(detail->unfused) << dim;
        const UnfusedBackward& form = *detail->unfused;
        std::vector<const Product*> products{&form.dq};
        EXPECT_EQ(form.stores_p(), dtype != Dtype::f32 || dim > 64) << dim;
        if (form.stores_p()) products.push_back(&*form.dv), products.push_back(&*form.dk);
        std::vector<const Step*> steps{&form.pairs};
        for (const Product* product : products) steps.push_back(&product->step);
        for (const Step* step : steps) {
          EXPECT_LE(step->launch.shared_bytes, most_shared) << step->config.kernel << dim;
          EXPECT_GE(step->config.stages, 2) << step->config.kernel << dim;
        }
        for (const Product* product : products) {
          const Config& c = product->step.config;
          EXPECT_EQ(c.block_m % (64 * c.warpgroups), 0) << dim;
          EXPECT_EQ(c.columns % 16, 0) << dim;
          EXPECT_GE(c.columns * product->slices, product->dim) << dim;
          EXPECT_LT(c.columns * (product->slices - 1), product->dim) << dim;
        }
      }
    }
  }
}

TEST(CudaUnfused, TheWorkspaceHoldsWholeHeadsOrChunksOfKeysAndKeepsItsLimit) {
  constexpr std::int64_t limit = std::int64_t{1} << 30;
  std::string why_not;
  for (const auto& [dtype, seqlen, fits] : {std::tuple{Dtype::bf16, 1000, true},
                                            {Dtype::bf16, 4096, true},
                                            {Dtype::bf16, 16384, true},
                                            {Dtype::bf16, 50000, true},
                                            {Dtype::bf16, 400000, false},
                                            {Dtype::f32, 1000, true},
                                            {Dtype::f32, 16384, true},
                                            {Dtype::f32, 50000, true}}) {
    Problem p = hopper_problem(dtype, 512, 512, seqlen);
    p.workspace_limit = limit;
    BackwardDetail detail;
    detail.statistics.emplace();
    const auto form = plan_unfused(p, hopper(), detail, why_not);
    ASSERT_EQ(form.has_value(), fits) << seqlen << why_not;
    if (!fits) {
      EXPECT_EQ(why_not,
                "P and dS of 128 keys need more than the workspace may hold, 1073741824 bytes");
      continue;
    }
    EXPECT_LE(form->workspace_bytes, static_cast<std::size_t>(limit + 4 * workspace_alignment))
        << seqlen;
    const Chunks& chunks = detail.unfused->chunks;
    if (chunks.keys_at_once == seqlen) continue;
    EXPECT_EQ(chunks.heads_kv_at_once, 1);
    EXPECT_EQ(chunks.keys_at_once % 128, 0);
    EXPECT_GT(chunks.sums_bytes, 0);
  }
}

TEST(CudaUnfused, SaysHow) {
  const auto how = [](const Problem& p) {
    return plan_cuda(p, hopper(), "cuda:0").backward.why.front();
  };
  const std::string end =
      "; every sum has a fixed order, so the result has the same bits every time";
  Problem p = hopper_problem(Dtype::bf16, 512, 512, 8192);
  EXPECT_EQ(how(p),
            "unfused: P and dS of 1 kv heads at a time go to the workspace (scores_sm90, tiles of "
            "256 queries by 128 keys), then dv, dk and dq are products with them" +
                end);
  p.num_heads = 32, p.num_heads_kv = 1;
  EXPECT_EQ(how(p),
            "unfused: P and dS of 4 query heads of a kv head at a time go to the workspace "
            "(scores_sm90, tiles of 256 queries by 128 keys), then dv, dk and dq are products with "
            "them, dk and dv summed over the query heads in f32" +
                end);
  p = hopper_problem(Dtype::f32, 64, 64);
  p.precision = Precision::high;
  EXPECT_EQ(how(p),
            "unfused: f32 as sums of 2 terms of bf16; backward_terms_sm90 keeps tiles of 128 keys "
            "in place, makes dk and dv and stores dS of 4 kv heads at a time in the workspace; dq "
            "is a product with it" +
                end);
  p.batch = p.num_heads = p.num_heads_kv = 1;
  EXPECT_EQ(how(p).substr(0, 70),
            "unfused: f32 as sums of 2 terms of bf16; P and dS of 1 kv heads at a t");
}

TEST(CudaUnfused, SaysWhyNot) {
  const auto reason = [](const Problem& p) {
    BackwardDetail detail;
    detail.statistics.emplace();
    std::string why_not;
    EXPECT_FALSE(plan_unfused(p, hopper(), detail, why_not));
    return why_not;
  };
  Problem p = hopper_problem(Dtype::bf16, 512, 512);
  p.seqlen_q = 63;
  EXPECT_EQ(reason(p), "few query rows");
  EXPECT_EQ(reason(hopper_problem(Dtype::f32, 64, 64, 128)),
            "too little work for kernels of their own");
}

// Little workspace, so that work is cut in every way.
struct Chunked {
  ingot_dtype dtype;
  std::int64_t dim, heads_kv, limit;

  // Narrow heads of f32 need tiles of keys for two thirds of the multiprocessors.
  std::int64_t batch() const { return dim <= 64 ? 6 : 2; }
};
constexpr Chunked chunked[] = {{INGOT_BF16, 264, 4, 3 << 19}, {INGOT_BF16, 264, 1, 7 << 20},
                               {INGOT_BF16, 264, 1, 5 << 20}, {INGOT_BF16, 264, 1, 7 << 19},
                               {INGOT_F32, 128, 4, 6 << 20},  {INGOT_F32, 128, 2, 11 << 20},
                               {INGOT_F32, 128, 2, 7 << 20},  {INGOT_F32, 48, 2, 4 << 20}};

TEST(CudaUnfused, WorkIsCutByHeadsOfAGroupThenByKeys) {
  struct Expected {
    std::int64_t heads_of_group;
    bool cuts_keys;
  };
  constexpr Expected expected[] = {{0, true}, {2, false}, {1, false}, {1, true},
                                   {0, true}, {1, false}, {1, true},  {0, true}};
  for (std::size_t i = 0; i < std::size(chunked); ++i) {
    const Chunked& c = chunked[i];
    const Dtype dtype = c.dtype == INGOT_F32 ? Dtype::f32 : Dtype::bf16;
    Problem p = hopper_problem(dtype, c.dim, c.dim, 1000);
    p.batch = c.batch(), p.num_heads = 4, p.num_heads_kv = c.heads_kv;
    p.seqlen_q = 400, p.workspace_limit = c.limit;
    const auto detail = detail_of(p);
    ASSERT_TRUE(detail->unfused) << i;
    EXPECT_EQ(detail->unfused->heads_of_group, expected[i].heads_of_group) << i;
    EXPECT_EQ(detail->unfused->chunks.keys_at_once < 1000, expected[i].cuts_keys) << i;
    EXPECT_EQ(detail->unfused->chunks.heads_kv_at_once, 1) << i;
    EXPECT_EQ(detail->unfused->stores_p(), c.dim > 64) << i;
  }
}

using conformance::Case;
using conformance::Data;
using conformance::Layout;
using conformance::Row;

void add_wide(conformance::Table& table) {
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const std::int64_t dim : {264, 320, 384, 500, 512, 640, 1024}) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 200, row.k = 461, row.d = dim, row.in = INGOT_BF16;
    row.layout = Layout::bshd;
    add(row);
    row.in = INGOT_F16, row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 170, row.softcap = 20;
    row.layout = Layout::bhsd;
    add(row);
    row.softcap = 0, row.batch = 2, row.causal = INGOT_CAUSAL_TOP_LEFT, row.left = -1;
    add(row);
  }
  for (const auto& [dim, dim_v] : {std::pair{576, 512}, {64, 512}, {320, 24}}) {
    Row row;
    row.heads = 8, row.heads_kv = 2, row.q = 300, row.k = 501, row.in = INGOT_BF16;
    row.d = dim, row.dv = dim_v;
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.out = INGOT_F32, row.grad = INGOT_F32;
    add(row);
  }
  for (const Data data : {Data::negative_logits, Data::huge_logits, Data::inf_q, Data::inf_k,
                          Data::inf_v, Data::nan_q, Data::nan_v, Data::nan_dout}) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 300, row.k = 280, row.d = 264, row.in = INGOT_BF16;
    row.data = data;
    add(row);
    row.causal = INGOT_CAUSAL_TOP_LEFT, row.left = 90;
    add(row);
  }
}

void add_f32(conformance::Table& table) {
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const std::int64_t dim : {24, 64, 100, 128, 320}) {
    Row row;
    row.heads = 4, row.heads_kv = 2, row.q = 300, row.k = 90000 / dim + 130, row.d = dim;
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.softcap = 10, row.layout = Layout::transposed;
    add(row);
    row.softcap = 0, row.precision = INGOT_PRECISION_HIGH, row.batch = 2;
    add(row);
    row.data = dim == 64 ? Data::inf_k : Data::nan_v;
    add(row);
  }
  for (const auto& [dim, dim_v] : {std::pair{64, 64}, {40, 24}, {16, 64}}) {  // dk, dv in place
    Row row;
    row.batch = 2, row.heads = 16, row.heads_kv = 8, row.q = 330, row.k = 800, row.d = dim;
    row.dv = dim_v;
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 200, row.layout = Layout::bshd;
    add(row);
    row.softcap = 10, row.precision = INGOT_PRECISION_HIGH;
    add(row);
    row.softcap = 0, row.causal = INGOT_CAUSAL_NONE, row.left = -1, row.data = Data::nan_q;
    add(row);
  }
}

void add_chunks(conformance::Table& table) {
  for (const Chunked& c : chunked) {
    Row row;
    row.batch = c.batch(), row.heads = 4, row.heads_kv = c.heads_kv, row.q = 400, row.k = 1000;
    row.in = c.dtype, row.d = c.dim, row.workspace_limit = c.limit;
    table.add(conformance::Tier::full, row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 500;
    table.add(conformance::Tier::full, row);
  }
}

std::vector<Case> gpu_cases() {
  conformance::Table table(true);
  add_wide(table);
  add_f32(table);
  add_chunks(table);
  return table.take();
}

class CudaUnfusedOnGpu : public testing::TestWithParam<Case> {};

TEST_P(CudaUnfusedOnGpu, AgreesWithReference) { expect_agreement_on_gpu(GetParam()); }

TEST(CudaUnfusedSameBits, FiftyTimes) {
  if (!has_gpu()) GTEST_SKIP() << "skipped: no NVIDIA GPU";
  ingot_context* const context = conformance::shared_context();
  conformance::Table table(true);
  for (const auto& [dtype, dim] : {std::pair{INGOT_BF16, 512}, {INGOT_F32, 64}, {INGOT_F32, 128}}) {
    Row row;
    row.heads = 8, row.heads_kv = 2, row.q = 700, row.k = 900, row.d = dim, row.in = dtype;
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.workspace_limit = 8 << 20;
    row.batch = dim == 64 ? 6 : 1;  // so many that dk and dv are made in place
    table.add(conformance::Tier::full, row);
  }
  for (const Case& c : table.take()) {
    const ingot_problem p = conformance::resolved(c.problem);
    conformance::Outcome outcome;
    const conformance::PlanHandle plan = conformance::make_plan(context, "cuda:0", p, outcome);
    ASSERT_NE(plan, nullptr) << outcome.message;
    std::vector<std::vector<std::byte>> first;
    for (int i = 0; i < 50; ++i) {
      const conformance::Operands t(p, c.layout);
      conformance::fill(t, p, c);
      ASSERT_EQ(conformance::run(plan.get(), t, false), "") << c.name;
      std::vector<std::vector<std::byte>> all{t.dq.buffer->bytes(), t.dk.buffer->bytes(),
                                              t.dv.buffer->bytes()};
      if (i == 0) first = all;
      ASSERT_EQ(all, first) << c.name << ", call " << i;
    }
  }
}

std::string test_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Table, CudaUnfusedOnGpu, testing::ValuesIn(gpu_cases()), test_name);

}  // namespace
}  // namespace ingot::cuda
