// What the Metal forward kernels promise beyond the contract of all devices.
#include <gtest/gtest.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

constexpr const char* device = "metal:0";

bool has_device() {
  for (const std::string& name : device_names(shared_context())) {
    if (name == device) return true;
  }
  return false;
}

void run_forward(const ingot_problem& p, const Operands& t, const Case& c) {
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), device, p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  fill(t, p, c);
  ASSERT_EQ(run(plan.get(), t, false), "");
}

void expect_rounded_once(const Row& row) {
  Table table(true);
  table.add(Tier::quick, row);
  const Case c = table.take().front();
  SCOPED_TRACE(c.name);
  ingot_problem p = resolved(c.problem);
  p.o_dtype = INGOT_F32;
  const Operands wide(p, c.layout);
  run_forward(p, wide, c);
  const Dense exact = wide.o.dense();
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16}) {
    p.o_dtype = dtype;
    const Operands narrow(p, c.layout);
    run_forward(p, narrow, c);
    const Dense got = narrow.o.dense();
    for (std::size_t i = 0; i < got.data.size(); ++i) {
      ASSERT_EQ(got.data[i], round_to(exact.data[i], dtype)) << "element " << i;
    }
  }
}

// A bfloat that a GPU has no type for is rounded by hand: to nearest even, not cut off.
TEST(MetalForward, OutputsAreRoundedOnceToTheNearest) {
  if (!has_device()) GTEST_SKIP() << "no device " << device;
  expect_rounded_once({.heads = 2, .q = 37, .k = 50, .d = 40, .in = INGOT_BF16});
  expect_rounded_once({.heads = 2, .heads_kv = 1, .q = 3, .k = 300, .d = 33, .in = INGOT_F16});
  expect_rounded_once({.q = 40, .k = 60, .d = 24, .dv = 136, .in = INGOT_BF16});
  expect_rounded_once({.q = 20, .k = 40, .d = 17, .layout = Layout::every_other});
}

}  // namespace
}  // namespace ingot::conformance
