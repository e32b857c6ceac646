// The stored backward pass for Hopper: what its tables may ask of the hardware, how the workspace
// is cut, why it is not taken, and, on such a GPU, rows of problems that take it.
#include "cuda_backward.hpp"

namespace ingot::cuda {
namespace {

using conformance::Case;
using conformance::Data;
using conformance::Layout;
using conformance::Row;

TEST(CudaStored, TilesFitTheMultiprocessor) {
  for (std::int64_t dim = 65; dim <= 256; ++dim) {
    for (const float softcap : {0.0F, 10.0F}) {
      Problem p = hopper_problem(Dtype::bf16, dim, dim / 2 + 1);
      p.softcap = softcap;
      const auto detail = detail_of(p);
      ASSERT_TRUE(detail->stored) << dim;
      const StoredBackward& form = *detail->stored;
      EXPECT_LE(form.keys.launch.shared_bytes, most_shared) << dim;
      EXPECT_LE(form.dq.step.launch.shared_bytes, most_shared) << dim;
      EXPECT_EQ(form.keys.config.wide, dim > 128) << dim;
      EXPECT_GE(form.dq.step.config.stages, 2) << dim;
    }
  }
}

TEST(CudaStored, TheWorkspaceHoldsWholeHeadsOrChunksOfKeysAndKeepsItsLimit) {
  for (const std::int64_t seqlen : {1000, 4096, 16384, 60000}) {
    for (const std::int64_t limit : {std::int64_t{5} << 28, std::int64_t{1} << 28}) {
      Problem p = hopper_problem(Dtype::bf16, 128, 128, seqlen);
      p.batch = 4, p.workspace_limit = limit;
      const Plan plan = plan_cuda(p, hopper(), "cuda:0");
      const auto& detail = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
      ASSERT_TRUE(detail.stored) << seqlen;
      const Chunks& chunks = detail.stored->chunks;
      EXPECT_LE(chunks.matrix_bytes + chunks.sums_bytes, limit) << seqlen;
      EXPECT_LE(plan.backward.workspace_bytes,
                static_cast<std::size_t>(limit + workspace_alignment) + detail.statistics->bytes);
      const std::int64_t rows = round_up(seqlen, 128), heads = 4 * chunks.heads_kv_at_once;
      EXPECT_EQ(chunks.matrix_bytes, heads * rows * round_up(chunks.keys_at_once, 128) * 2);
      if (chunks.keys_at_once == seqlen) {
        EXPECT_EQ(chunks.sums_bytes, 0);
      } else {
        EXPECT_EQ(chunks.heads_kv_at_once, 1);
        EXPECT_EQ(chunks.keys_at_once % 128, 0);
        EXPECT_EQ(chunks.sums_bytes, 4 * rows * 128 * 4);
      }
    }
  }
}

TEST(CudaStored, GroupsOfHeadsFillRoundsOfMultiprocessors) {
  Problem p = hopper_problem(Dtype::bf16, 128, 128, 8192);
  p.num_heads = p.num_heads_kv = 16;                // 64 tiles of 128 keys a head
  p.workspace_limit = 9 * (std::int64_t{1} << 27);  // 9 heads: 5 rounds, then 4 for the other 7
  EXPECT_EQ(detail_of(p)->stored->chunks.heads_kv_at_once, 8);  // 4 and 4
  p.causal = Causal::top_left;                                  // tiles differ in length
  EXPECT_EQ(detail_of(p)->stored->chunks.heads_kv_at_once, 9);
}

TEST(CudaStored, SaysWhyNot) {
  const auto reason = [](const Problem& p) {
    BackwardDetail detail;
    detail.statistics.emplace();
    std::string why_not;
    EXPECT_FALSE(plan_stored(p, hopper(), detail, why_not));
    return why_not;
  };
  Problem p = hopper_problem(Dtype::bf16, 128, 128);
  p.workspace_limit = 1 << 20;
  EXPECT_EQ(reason(p), "dS of 128 keys needs more than the workspace may hold, 1048576 bytes");
  p = hopper_problem(Dtype::bf16, 128, 128);
  p.num_heads_kv = 1, p.num_heads = 64;
  EXPECT_EQ(reason(p), "few tiles of keys for the multiprocessors");
  p.seqlen_q = 63;
  EXPECT_EQ(reason(p), "few query rows");
  EXPECT_EQ(reason(hopper_problem(Dtype::bf16, 128, 128, 128)),
            "too little work for kernels of their own");
  EXPECT_EQ(reason(hopper_problem(Dtype::bf16, 257, 128)), "a head is wider than 256");
  EXPECT_EQ(reason(hopper_problem(Dtype::f32, 128, 128)), "dtype f32");
}

/// Heads enough for the multiprocessors; lengths that end within tiles.
Row row_of(std::int64_t dim) {
  Row row;
  row.batch = 2, row.heads = 32, row.heads_kv = 16, row.q = 200, row.k = 391;
  row.d = dim, row.in = INGOT_BF16;
  return row;
}

void add_shapes(conformance::Table& table) {
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const std::int64_t dim : {65, 72, 96, 128, 136, 160, 192, 240, 256}) {
    Row row = row_of(dim);
    row.layout = Layout::bshd;
    add(row);
    row.in = INGOT_F16, row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 150, row.softcap = 20;
    row.layout = Layout::bhsd;
    add(row);
    row.softcap = 0, row.causal = INGOT_CAUSAL_TOP_LEFT, row.left = -1, row.grad = INGOT_F32;
    add(row);
  }
  for (const auto& [dim, dim_v] : {std::pair{192, 128}, {128, 80}, {40, 256}}) {
    Row row = row_of(dim);
    row.dv = dim_v;
    add(row);
  }
}

void add_data_and_chunks(conformance::Table& table) {
  const auto add = [&](const Row& row) { table.add(conformance::Tier::full, row); };
  for (const std::int64_t dim : {128, 256}) {
    for (const Data data : {Data::negative_logits, Data::huge_logits, Data::inf_q, Data::inf_k,
                            Data::inf_v, Data::nan_q, Data::nan_v, Data::nan_dout}) {
      Row row = row_of(dim);
      row.data = data;
      add(row);
      row.causal = INGOT_CAUSAL_TOP_LEFT, row.left = 90;
      add(row);
    }
    Row row = row_of(dim);
    row.k = 900, row.workspace_limit = 800000;  // dS of some hundred keys, and dq's sums
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT;
    add(row);
  }
}

std::vector<Case> gpu_cases() {
  conformance::Table table(true);
  add_shapes(table);
  add_data_and_chunks(table);
  return table.take();
}

class CudaStoredOnGpu : public testing::TestWithParam<Case> {};

TEST_P(CudaStoredOnGpu, AgreesWithReference) { expect_agreement_on_gpu(GetParam()); }

std::string test_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Table, CudaStoredOnGpu, testing::ValuesIn(gpu_cases()), test_name);

}  // namespace
}  // namespace ingot::cuda
