// What backward kernels of this kind are known to get wrong, and shapes between the rows of their
// tables, on device metal:0 against the reference.
#if defined(INGOT_WITH_METAL)
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "case.hpp"
#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

class MetalBackward : public testing::Test {
 protected:
  void SetUp() override {
    const std::vector<std::string> names = device_names(shared_context());
    if (std::find(names.begin(), names.end(), "metal:0") == names.end()) {
      GTEST_SKIP() << "skipped: no Metal device";
    }
  }

  static void run(const Row& row) {
    Table table(true);
    table.add(Tier::quick, row);
    for (const Case& c : table.take()) {
      const Outcome outcome = run_case(shared_context(), "metal:0", c);
      EXPECT_EQ(outcome.status, Status::passed) << c.name << ": " << outcome.message;
    }
  }
};

// Keys beyond the last one: their scores are 0 and lse is -1000, so that exp(0 - lse) is infinite.
TEST_F(MetalBackward, PaddedColumnsStayHarmlessUnderStronglyNegativeLogits) {
  for (const ingot_dtype in : {INGOT_F32, INGOT_F16, INGOT_BF16}) {
    run({.q = 19, .k = 37, .d = 64, .in = in, .data = Data::negative_logits});
  }
  run({.q = 37, .k = 19, .d = 130, .in = INGOT_F16, .data = Data::negative_logits});
  run({.q = 37, .k = 45, .d = 20, .causal = INGOT_CAUSAL_TOP_LEFT, .data = Data::negative_logits});
}

TEST_F(MetalBackward, ScoresBeyondTheLargestF16) {
  run({.q = 21, .k = 35, .d = 64, .in = INGOT_F16, .data = Data::huge_logits});
}

TEST_F(MetalBackward, RowsThatSeeNoKeyHaveGradientZero) {
  run({.q = 50, .k = 12, .d = 40, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
  run({.q = 50, .k = 12, .d = 136, .in = INGOT_BF16, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
}

TEST_F(MetalBackward, EveryRowOfTheTables) {
  for (const std::int64_t d : {90, 150, 250, 380, 500, 700, 1000}) {
    run({.heads = 2, .heads_kv = 1, .q = 21, .k = 35, .d = d, .in = INGOT_F16});
    run({.q = 21, .k = 35, .d = d});
  }
  run({.q = 21, .k = 35, .d = 12, .dv = 400, .in = INGOT_BF16});
  run({.q = 21, .k = 35, .d = 400, .dv = 12, .in = INGOT_BF16});
}

/// bf16 numbers by their bits.
float of_bits(std::uint16_t bits) {
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}

// One key: both rows give it weight 1, so dv = dout[0] + dout[1], rounded to nearest. Truncation
// would give 1 in the first column; bits left over from a neighbour in memory would show anywhere.
TEST_F(MetalBackward, Bf16RoundsToNearestAndReadsNoNeighbour) {
  constexpr std::int64_t dim = 8;
  std::vector<std::uint16_t> q(2 * dim, 0), k(dim, 0), v(dim, 0), o(2 * dim, 0), dv(dim, 0xFFFF);
  // 1 + (2^-8 + 2^-12) -> 1 + 2^-7;  1 + (2^-9 + 2^-13) -> 1;  and the largest mantissas between.
  std::vector<std::uint16_t> dout(2 * dim, 0x3F80);
  for (std::size_t d = 0; d < dim; ++d) dout[dim + d] = d % 2 == 0 ? 0x3B88 : 0x3B08;
  std::array<float, 2> lse{0, 0};
  ingot_problem problem;
  ingot_problem_init(&problem);
  problem.batch = problem.num_heads = problem.num_heads_kv = 1;
  problem.seqlen_q = 2, problem.seqlen_k = 1;
  problem.head_dim = problem.head_dim_v = dim;
  problem.q_dtype = INGOT_BF16;
  ingot_backward_args args;
  ingot_backward_args_init(&args);
  const auto rows = [](void* data, std::int64_t n) {
    return ingot_tensor{data, {n * dim, n * dim, dim, 1}};
  };
  args.q = rows(q.data(), 2), args.k = rows(k.data(), 1), args.v = rows(v.data(), 1);
  args.o = rows(o.data(), 2), args.dout = rows(dout.data(), 2), args.dv = rows(dv.data(), 1);
  args.lse = {lse.data(), {2, 2, 1, 1}};
  ASSERT_EQ(ingot_attention_backward(shared_context(), "metal:0", &problem, &args), INGOT_OK)
      << ingot_last_error();
  for (std::size_t d = 0; d < dim; ++d) {
    EXPECT_EQ(of_bits(dv[d]), d % 2 == 0 ? 1.0078125F : 1.0F) << d;
  }
}

}  // namespace
}  // namespace ingot::conformance
#endif
