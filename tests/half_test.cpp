// src/core/half.hpp against the definition of the formats.
#include "core/half.hpp"

#include <gtest/gtest.h>

#include "tensor.hpp"

namespace ingot {
namespace {

using conformance::decode_half;
using conformance::encode_half;

std::uint16_t encode(double x, ingot_dtype dtype) {
  return dtype == INGOT_F16 ? to_f16(x) : to_bf16(x);
}
double decode(std::uint16_t bits, ingot_dtype dtype) {
  return dtype == INGOT_F16 ? from_f16(bits) : from_bf16(bits);
}

TEST(Half, EveryPatternDecodesAndComesBack) {
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16}) {
    for (unsigned pattern = 0; pattern <= 0xFFFFU; ++pattern) {
      const auto bits = static_cast<std::uint16_t>(pattern);
      const double want = decode_half(bits, dtype);
      const double got = decode(bits, dtype);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(got)) << pattern;
        ASSERT_TRUE(std::isnan(decode(encode(got, dtype), dtype))) << pattern;
      } else {
        ASSERT_EQ(got, want) << pattern;
        ASSERT_EQ(std::signbit(got), std::signbit(want)) << pattern;
        ASSERT_EQ(encode(got, dtype), bits) << pattern;
      }
    }
  }
}

/// Midpoints of neighbours go to the even one, anything beside them to the nearer.
TEST(Half, RoundsToNearestEven) {
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16}) {
    const unsigned largest = dtype == INGOT_F16 ? 0x7BFFU : 0x7F7FU;
    for (unsigned pattern = 0; pattern < largest; ++pattern) {
      const auto low = static_cast<std::uint16_t>(pattern);
      const auto high = static_cast<std::uint16_t>(pattern + 1);
      const double middle = (decode(low, dtype) + decode(high, dtype)) / 2;
      ASSERT_EQ(encode(middle, dtype), pattern % 2 == 0 ? low : high) << pattern;
      ASSERT_EQ(encode(std::nextafter(middle, 0), dtype), low) << pattern;
      ASSERT_EQ(encode(std::nextafter(middle, 1e300), dtype), high) << pattern;
      ASSERT_EQ(encode(-middle, dtype), 0x8000U | (pattern % 2 == 0 ? low : high)) << pattern;
    }
  }
}

TEST(Half, OverflowGivesInfinity) {
  EXPECT_EQ(to_f16(65519.99), 0x7BFF);
  EXPECT_EQ(to_f16(65520), 0x7C00);
  EXPECT_EQ(to_f16(-1e300), 0xFC00);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(to_bf16(-std::numeric_limits<double>::infinity()), 0xFF80);
}

TEST(Half, AgreesWithTheTestsOwnConversion) {
  conformance::Random random("half");
  for (int i = 0; i < 200000; ++i) {
    const double x = random.normal() * std::ldexp(1.0, static_cast<int>(random.bits() % 80) - 40);
    for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16}) {
      ASSERT_EQ(encode(x, dtype), encode_half(x, dtype)) << x;
      ASSERT_EQ(decode(encode(x, dtype), dtype), conformance::round_to(x, dtype)) << x;
    }
  }
}

}  // namespace
}  // namespace ingot
