// The building blocks of the CPU kernels, in every instruction set this processor has: exp2, tanh,
// the tile product and the copies between tensors and tiles.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd_test.cpp"
#include <hwy/foreach_target.h>

#include "cpu/copy-inl.h"
#include "cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

void exp2_all(float* x, std::int64_t count) {
  for (Index i = 0; i + kLanes <= count; i += kLanes) exp2_(Vec::load(x + i)).store(x + i);
}

void tanh_all(float* x, std::int64_t count) {
  for (Index i = 0; i + kLanes <= count; i += kLanes) tanh_(Vec::load(x + i)).store(x + i);
}

void sums_of_lanes(const float* x, float* to) {
  store_sums(Vec::load(x), Vec::load(x + kLanes), Vec::load(x + 2 * kLanes),
             Vec::load(x + 3 * kLanes), to);
}

std::int64_t lanes() { return kLanes; }

const char* target_name() { return hwy::TargetName(HWY_TARGET); }

void product(std::int64_t rows, std::int64_t cols, std::int64_t depth, const float* a,
             std::int64_t a_row, std::int64_t a_depth, const float* b, float* c, int start,
             const float* factor, float* col_max) {
  const Product p = {.rows = rows,
                     .cols = cols,
                     .depth = depth,
                     .a = a,
                     .a_row = a_row,
                     .a_depth = a_depth,
                     .b = b,
                     .b_depth = cols,
                     .c = c,
                     .c_row = cols,
                     .start = static_cast<Start>(start),
                     .col_factor = factor};
  if (col_max != nullptr) {
    multiply_with_max(p, col_max);
  } else {
    multiply(p);
  }
}

void copy_in(const ConstRows& from, std::int64_t row, std::int64_t rows, std::int64_t dims,
             float* natural, std::int64_t padded, float* transposed, std::int64_t tile_dim) {
  load_rows(from, {row, rows, dims}, natural, padded, padded);
  load_transposed(from, {row, rows, dims}, 2.0F, transposed, tile_dim);
}

void copy_out(const float* natural, std::int64_t padded, const float* transposed,
              std::int64_t tile_dim, const float* factor, const Rows& to, const Rows& to_transposed,
              std::int64_t rows, std::int64_t dims) {
  store_rows(natural, padded, to, {0, rows, dims});
  store_transposed(transposed, tile_dim, factor, to_transposed, {0, rows, dims});
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/half.hpp"
#include "targets.hpp"

namespace ingot {
namespace {

HWY_EXPORT(exp2_all);
HWY_EXPORT(tanh_all);
HWY_EXPORT(sums_of_lanes);
HWY_EXPORT(lanes);
HWY_EXPORT(target_name);
HWY_EXPORT(product);
HWY_EXPORT(copy_in);
HWY_EXPORT(copy_out);

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

class Simd : public testing::TestWithParam<std::int64_t> {
 protected:
  ForcedTarget forced_{GetParam()};
  std::mt19937 random_{7};

  /// Without a fused multiply-add in the instruction set every step rounds twice.
  static bool has_fma() { return GetParam() != HWY_SCALAR && GetParam() != HWY_EMU128; }

  std::vector<float> normal(std::int64_t count) {
    std::normal_distribution<float> distribution;
    std::vector<float> x(static_cast<std::size_t>(count));
    for (float& value : x) value = distribution(random_);
    return x;
  }
};

INSTANTIATE_TEST_SUITE_P(EveryTarget, Simd, testing::ValuesIn(supported_targets()), name_of_target);

/// Distance from the exact value in units of the last place of a float of that size.
double ulps(float value, double exact) {
  const double unit = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
  return std::abs(static_cast<double>(value) - exact) / unit;
}

std::vector<float> spread(float low, float high, std::size_t count) {
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = low + (high - low) * static_cast<float>(i) / static_cast<float>(count - 1);
  }
  return x;
}

TEST_P(Simd, TheForcedTargetRuns) {
  EXPECT_STREQ(HWY_DYNAMIC_DISPATCH(target_name)(), hwy::TargetName(GetParam()));
}

TEST_P(Simd, Exp2IsWithinTwoUlp) {
  std::vector<float> x = spread(-126.0F, 102.99F, 1 << 18);
  const std::vector<float> near_zero = spread(-1.0F, 1.0F, 1 << 18);
  x.insert(x.end(), near_zero.begin(), near_zero.end());
  std::vector<float> y = x;
  HWY_DYNAMIC_DISPATCH(exp2_all)(y.data(), std::ssize(y));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, ulps(y[i], std::exp2(static_cast<double>(x[i]))));
  }
  EXPECT_LE(worst, has_fma() ? 2.0 : 2.5);
}

// Weights of far below the largest one of their row, which multiply values of up to 3e38.
TEST_P(Simd, Exp2KeepsSubnormalNumbers) {
  std::vector<float> x = spread(-150.0F, -125.0F, 1 << 16);
  std::vector<float> y = x;
  HWY_DYNAMIC_DISPATCH(exp2_all)(y.data(), std::ssize(y));
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(ulps(y[i], std::exp2(static_cast<double>(x[i]))), has_fma() ? 2.0 : 2.5) << x[i];
  }
  EXPECT_EQ(y.front(), 0.0F);  // half of the smallest number, to even
}

TEST_P(Simd, Exp2OfSpecialNumbers) {
  std::vector<float> x(64, -infinity);
  const float inputs[] = {-infinity, -1e30F, -200.0F, -150.5F,  0.0F,
                          -0.0F,     1.0F,   128.0F,  infinity, nan};
  std::copy(std::begin(inputs), std::end(inputs), x.begin());
  HWY_DYNAMIC_DISPATCH(exp2_all)(x.data(), std::ssize(x));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(x[i], 0.0F) << inputs[i];
  EXPECT_EQ(x[4], 1.0F);
  EXPECT_EQ(x[5], 1.0F);
  EXPECT_EQ(x[6], 2.0F);
  EXPECT_EQ(x[7], infinity);
  EXPECT_EQ(x[8], infinity);
  EXPECT_TRUE(std::isnan(x[9]));
}

TEST_P(Simd, TanhIsWithinThreeUlpAlsoNearZero) {
  std::vector<float> x = spread(-12.0F, 12.0F, 1 << 18);
  for (float scale = 1.0F; scale > 1e-30F; scale *= 0.37F) x.push_back(scale);
  x.resize((x.size() + 63) / 64 * 64, 0.3F);
  std::vector<float> y = x;
  HWY_DYNAMIC_DISPATCH(tanh_all)(y.data(), std::ssize(y));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] != 0.0F) worst = std::max(worst, ulps(y[i], std::tanh(static_cast<double>(x[i]))));
  }
  EXPECT_LE(worst, 3.0);
}

TEST_P(Simd, TanhOfSpecialNumbers) {
  std::vector<float> x(64, 0.0F);
  x[1] = -0.0F;
  x[2] = infinity;
  x[3] = -infinity;
  x[4] = 1e30F;
  x[5] = nan;
  HWY_DYNAMIC_DISPATCH(tanh_all)(x.data(), std::ssize(x));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(x[0]), 0U);
  EXPECT_EQ(x[1], 0.0F);
  EXPECT_EQ(x[2], 1.0F);
  EXPECT_EQ(x[3], -1.0F);
  EXPECT_EQ(x[4], 1.0F);
  EXPECT_TRUE(std::isnan(x[5]));
}

TEST_P(Simd, SumsOfLanes) {
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes)();
  std::vector<float> x(static_cast<std::size_t>(4 * lanes));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * i);
  float sums[4];
  HWY_DYNAMIC_DISPATCH(sums_of_lanes)(x.data(), sums);
  for (std::int64_t v = 0; v < 4; ++v) {
    float expected = 0;
    for (std::int64_t i = v * lanes; i < (v + 1) * lanes; ++i) expected += x[i];
    EXPECT_EQ(sums[v], expected);
  }
}

// Every height of a tile and remainders, one and two vectors, both layouts of A, every start.
TEST_P(Simd, ProductIsTheSumInOrderOfDepth) {
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes)();
  for (const std::int64_t depth : {0, 1, 5, 64}) {
    for (std::int64_t rows = 1; rows <= 31; ++rows) {
      for (const std::int64_t vectors : {1, 2, 3, 5}) {
        const std::int64_t cols = vectors * lanes;
        const bool along_rows = (rows + vectors) % 2 == 0;
        const int start = static_cast<int>((rows + depth) % 3);
        const std::int64_t a_row = along_rows ? 1 : depth + 3;
        const std::int64_t a_depth = along_rows ? rows + 5 : 1;
        const std::vector<float> a = normal((rows + 5) * (depth + 3));
        const std::vector<float> b = normal(std::max<std::int64_t>(depth, 1) * cols);
        const std::vector<float> factor = normal(cols);
        std::vector<float> c = normal(rows * cols);
        std::vector<float> expected = c;
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t v = 0; v < cols; ++v) {
            float& sum = expected[r * cols + v];
            if (start == 0) sum = 0;
            if (start == 2) sum *= factor[v];
            for (std::int64_t k = 0; k < depth; ++k) {
              sum = std::fma(a[r * a_row + k * a_depth], b[k * cols + v], sum);
            }
          }
        }
        HWY_DYNAMIC_DISPATCH(product)
        (rows, cols, depth, a.data(), a_row, a_depth, b.data(), c.data(), start, factor.data(),
         nullptr);
        for (std::size_t i = 0; i < c.size(); ++i) {
          if (!has_fma()) {
            ASSERT_NEAR(c[i], expected[i], 1e-4) << rows << " x " << cols << " x " << depth;
          } else {
            ASSERT_EQ(c[i], expected[i]) << rows << " x " << cols << " x " << depth;
          }
        }
      }
    }
  }
}

TEST_P(Simd, ProductWithMaxRaisesTheMaximum) {
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes)();
  for (std::int64_t rows = 1; rows <= 30; ++rows) {
    const std::int64_t cols = 3 * lanes;
    const std::vector<float> a = normal(rows * 8);
    const std::vector<float> b = normal(8 * cols);
    std::vector<float> c(static_cast<std::size_t>(rows * cols));
    std::vector<float> highest(static_cast<std::size_t>(cols), -infinity);
    highest[1] = 100.0F;
    HWY_DYNAMIC_DISPATCH(product)
    (rows, cols, 8, a.data(), 8, 1, b.data(), c.data(), 0, nullptr, highest.data());
    for (std::int64_t v = 0; v < cols; ++v) {
      float expected = v == 1 ? 100.0F : -infinity;
      for (std::int64_t r = 0; r < rows; ++r) expected = std::max(expected, c[r * cols + v]);
      ASSERT_EQ(highest[v], expected) << rows << ", " << v;
    }
  }
}

std::vector<std::uint16_t> to_bits(const std::vector<float>& x, Dtype dtype) {
  std::vector<std::uint16_t> bits;
  for (const float value : x) bits.push_back(dtype == Dtype::f16 ? to_f16(value) : to_bf16(value));
  return bits;
}

double from_bits(std::uint16_t bits, Dtype dtype) {
  return dtype == Dtype::f16 ? from_f16(bits) : from_bf16(bits);
}

// A tensor of every dtype, with neighbouring and with distant dims, into tiles and back.
TEST_P(Simd, CopiesConvertAndTranspose) {
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes)();
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (const std::int64_t dim_stride : {1, 3}) {
      for (const std::int64_t dims : {1, 4, 17, 64, 70, 131}) {
        const std::int64_t rows = 1 + dims % 19;
        const std::int64_t row_stride = dims * dim_stride + 2;
        const std::vector<float> values = normal((rows + 1) * row_stride);
        const std::vector<std::uint16_t> bits = to_bits(values, dtype);
        const void* const data =
            dtype == Dtype::f32 ? static_cast<const void*>(values.data()) : bits.data();
        const auto at = [&](std::int64_t r, std::int64_t d) {
          const std::size_t i = static_cast<std::size_t>((r + 1) * row_stride + d * dim_stride);
          return dtype == Dtype::f32 ? static_cast<double>(values[i]) : from_bits(bits[i], dtype);
        };
        const std::int64_t padded = (dims + lanes - 1) / lanes * lanes;
        const std::int64_t tile_dim = (rows + lanes - 1) / lanes * lanes;
        std::vector<float> natural(static_cast<std::size_t>(rows * padded), nan);
        std::vector<float> transposed(static_cast<std::size_t>(dims * tile_dim), nan);
        HWY_DYNAMIC_DISPATCH(copy_in)
        ({data, dtype, row_stride, dim_stride}, 1, rows, dims, natural.data(), padded,
         transposed.data(), tile_dim);
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t d = 0; d < padded; ++d) {
            ASSERT_EQ(natural[r * padded + d], d < dims ? at(r, d) : 0.0) << r << ", " << d;
          }
        }
        for (std::int64_t d = 0; d < dims; ++d) {
          for (std::int64_t r = 0; r < tile_dim; ++r) {
            ASSERT_EQ(transposed[d * tile_dim + r], r < rows ? 2 * at(r, d) : 0.0)
                << r << ", " << d;
          }
        }
        std::vector<float> out(values.size(), nan), out_transposed(values.size(), nan);
        const std::vector<float> half(static_cast<std::size_t>(rows), 0.5F);
        const Rows to = {out.data(), dtype, row_stride, dim_stride};
        const Rows to_transposed = {out_transposed.data(), dtype, row_stride, dim_stride};
        HWY_DYNAMIC_DISPATCH(copy_out)
        (natural.data(), padded, transposed.data(), tile_dim, half.data(), to, to_transposed, rows,
         dims);
        const auto read = [&](const std::vector<float>& x, std::int64_t r, std::int64_t d) {
          const std::int64_t i = r * row_stride + d * dim_stride;
          if (dtype == Dtype::f32) return static_cast<double>(x[i]);
          return from_bits(reinterpret_cast<const std::uint16_t*>(x.data())[i], dtype);
        };
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t d = 0; d < dims; ++d) {
            ASSERT_EQ(read(out, r, d), at(r, d)) << r << ", " << d;
            ASSERT_EQ(read(out_transposed, r, d), at(r, d)) << r << ", " << d;
          }
        }
      }
    }
  }
}

TEST_P(Simd, StoresRoundToNearestEven) {
  std::vector<float> x = normal(4096);
  for (std::size_t i = 0; i < 2048; ++i)
    x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
  const float exact_ties[] = {1.00390625F, 1.01171875F, infinity, -infinity,
                              nan,         3.4e38F,     65519.0F, 65520.0F};
  std::copy(std::begin(exact_ties), std::end(exact_ties), x.begin());
  const std::vector<float> one(1, 1.0F);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    std::vector<std::uint16_t> out(x.size()), unused(x.size());
    const Rows to = {out.data(), dtype, std::ssize(x), 1};
    const Rows other = {unused.data(), dtype, std::ssize(x), 1};
    HWY_DYNAMIC_DISPATCH(copy_out)(x.data(), std::ssize(x), x.data(), 1, one.data(), to, other, 1,
                                   std::ssize(x));
    const std::vector<std::uint16_t> expected = to_bits(x, dtype);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        ASSERT_TRUE(std::isnan(from_bits(out[i], dtype)));
      } else {
        ASSERT_EQ(out[i], expected[i]) << x[i];
      }
    }
  }
}

}  // namespace
}  // namespace ingot
#endif
