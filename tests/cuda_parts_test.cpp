// Parts of the CUDA back end's host code that need no driver at all.
#include <gtest/gtest.h>

#include "cuda/host_tensors.hpp"
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
