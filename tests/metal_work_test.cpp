// Blocks outside of the mask cost nothing on device metal:0, and head_dim is padded to the next
// multiple of 8, not further: matrix operations, as softmetal counts them. No clock is asked.
#if defined(INGOT_METAL_IN_SOFTWARE)
#include <gtest/gtest.h>
#include <softmetal/softmetal.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

struct Work {
  double forward = 0, dq = 0, dkv = 0;  ///< matrix operations
};

double operations_of(const char* kernel) {
  softmetal_counters counters{};
  counters.struct_size = sizeof counters;
  if (softmetal_get_counters(kernel, &counters) != 0) return 0;
  return static_cast<double>(counters.matrix_operations);
}

Work measure(const Row& row) {
  Table table(true);
  table.add(Tier::quick, row);
  const Case c = table.take().front();
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "metal:0", p, outcome);
  EXPECT_NE(plan, nullptr) << outcome.message;
  if (plan == nullptr) return {};
  const Operands t(p, c.layout);
  fill(t, p, c);
  softmetal_reset_counters();
  EXPECT_EQ(run(plan.get(), t, false), "");
  return {operations_of("forward") + operations_of("forward_wide"), operations_of("backward_dq"),
          operations_of("backward_dkv")};
}

constexpr std::int64_t seqlen = 512;

void expect_part(const Row& masked, const Row& dense, double most) {
  const Work all = measure(dense), some = measure(masked);
  EXPECT_LT(some.forward, most * all.forward);
  EXPECT_LT(some.dq, most * all.dq);
  EXPECT_LT(some.dkv, most * all.dkv);
}

// Of 512 x 512 pairs a causal mask leaves half; blocks on its boundary add a block's width.
TEST(MetalWork, ACausalMaskSavesItsHalf) {
  for (const std::int64_t d : {std::int64_t{64}, std::int64_t{160}}) {
    for (const ingot_dtype in : {INGOT_F16, INGOT_F32}) {
      const Row dense{.q = seqlen, .k = seqlen, .d = d, .in = in};
      Row causal = dense;
      causal.causal = INGOT_CAUSAL_TOP_LEFT;
      SCOPED_TRACE(d);
      expect_part(causal, dense, 0.66);
    }
  }
}

TEST(MetalWork, AWindowLeavesABand) {
  const Row dense{.q = seqlen, .k = seqlen, .d = 64, .in = INGOT_F16};
  Row band = dense;
  band.left = 32, band.right = 0;
  expect_part(band, dense, 0.45);
}

TEST(MetalWork, AHeadDimIsPaddedToTheNextMultipleOfEight) {
  for (const std::int64_t d : {std::int64_t{33}, std::int64_t{72}, std::int64_t{100}}) {
    const Row odd{.q = 128, .k = 128, .d = d, .in = INGOT_F16};
    Row even = odd;
    even.d = (d + 7) / 8 * 8;
    const Work ours = measure(odd), next = measure(even);
    EXPECT_EQ(ours.forward, next.forward) << d;
    EXPECT_EQ(ours.dq, next.dq) << d;
    EXPECT_EQ(ours.dkv, next.dkv) << d;
  }
}

}  // namespace
}  // namespace ingot::conformance
#endif
