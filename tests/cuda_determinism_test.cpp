// Fifty runs of every CUDA kernel on a real GPU give the same bits: a moving error is a race.
// Shapes fill the device more than once, so that blocks meet in another order every time.
#include <gtest/gtest.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

constexpr int repeats = 50;

/// Both passes of every kernel: tiles that stay and that are handed out, f32 by terms, wide heads,
/// split keys, and strides that only the kernels of sm_80 take.
std::vector<Case> rows_of_every_kernel() {
  Table table(true);
  const auto add = [&](const Row& row) { table.add(Tier::full, row); };
  for (const std::int64_t dim : {64, 128, 192, 256, 320, 512}) {
    Row row{.heads = 20, .heads_kv = 10, .q = 1000, .k = 777, .d = dim, .in = INGOT_BF16};
    if (dim > 256) row.heads = 8, row.heads_kv = 4, row.q = 600;
    add(row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.in = INGOT_F16;
    add(row);
  }
  for (const std::int64_t dim : {64, 128}) {
    Row row{.heads = 16, .heads_kv = 8, .q = 900, .k = 1100, .d = dim};
    add(row);
    row.precision = INGOT_PRECISION_HIGH;
    add(row);
  }
  Row decode{
      .batch = 2, .heads = 16, .heads_kv = 4, .q = 1, .k = 20000, .d = 128, .in = INGOT_BF16};
  add(decode);
  decode.layout = Layout::padded_rows;  // not by the copy engine
  add(decode);
  decode.q = 40, decode.batch = 1;
  add(decode);
  add({.heads = 12,
       .heads_kv = 4,
       .q = 500,
       .k = 700,
       .d = 80,
       .in = INGOT_BF16,
       .layout = Layout::transposed});
  return table.take();
}

class CudaDeterminismOnGpu : public testing::TestWithParam<Case> {};

TEST_P(CudaDeterminismOnGpu, RepeatsHaveTheSameBits) {
  const std::vector<std::string> devices = device_names(shared_context());
  if (std::find(devices.begin(), devices.end(), "cuda:0") == devices.end()) {
    GTEST_SKIP() << "skipped: no NVIDIA GPU";
  }
  const Case& c = GetParam();
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "cuda:0", p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  const Operands t(p, c.layout);
  fill(t, p, c);
  const Operand* const outputs[] = {&t.o, &t.lse, &t.dq, &t.dk, &t.dv};
  std::vector<std::vector<std::byte>> first;
  for (int i = 0; i < repeats; ++i) {
    ASSERT_EQ(run(plan.get(), t, i % 2 == 0), "");
    for (std::size_t n = 0; n < std::size(outputs); ++n) {
      if (i == 0) first.push_back(outputs[n]->buffer->bytes());
      ASSERT_TRUE(outputs[n]->buffer->bytes() == first[n])
          << outputs[n]->name << " of run " << i << " differs";
    }
  }
}

std::string test_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Table, CudaDeterminismOnGpu, testing::ValuesIn(rows_of_every_kernel()),
                         test_name);

}  // namespace
}  // namespace ingot::conformance
