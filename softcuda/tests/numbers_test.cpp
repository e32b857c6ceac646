// Instructions on numbers, against their definitions in the PTX ISA.
#include <cmath>
#include <limits>

#include "support.hpp"

namespace {

using test::Buffer;
using test::Kernel;
using test::uint16_t;
using test::uint32_t;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// y[i] = f(x[i]) by an instruction of floats.
std::vector<float> each(const char* instruction, const std::vector<float>& x) {
  std::string text =
      "extern \"C\" __global__ void test(const float* x, float* y) {\n"
      "  asm(\"" +
      std::string(instruction) +
      " %0, %1;\" : \"=f\"(y[threadIdx.x]) : \"f\"(x[threadIdx.x]));\n}\n";
  const Kernel kernel(text);
  const Buffer<float> from(x), to(x.size());
  REQUIRE(kernel.run({1, static_cast<unsigned>(x.size())}, from.data(), to.data()) == 0);
  return to.read();
}

TEST(ex2_flushes_subnormal_numbers) {
  const auto y = each("ex2.approx.ftz.f32", {0, 1, -3, 0.5F, -130, -infinity, infinity, NAN});
  REQUIRE(y[0] == 1 && y[1] == 2 && y[2] == 0.125F);
  REQUIRE(std::fabs(y[3] - std::sqrt(2.0F)) < 1e-6F);
  REQUIRE(y[4] == 0 && y[5] == 0 && y[6] == infinity && std::isnan(y[7]));
}

TEST(lg2_of_zero_is_minus_infinity) {
  const auto y = each("lg2.approx.f32", {1, 8, 0, -1, infinity});
  REQUIRE(y[0] == 0 && y[1] == 3 && y[2] == -infinity && std::isnan(y[3]) && y[4] == infinity);
}

TEST(tanh_is_within_its_error) {
  const auto y = each("tanh.approx.f32", {0, 0.5F, -20});
  REQUIRE(y[0] == 0 && std::fabs(y[1] - std::tanh(0.5F)) < 1e-3F && y[2] == -1);
}

TEST(min_keeps_nan) {
  const Kernel kernel(R"(
extern "C" __global__ void test(float* y) {
  const float nan = __uint_as_float(0x7FC00000u);
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y[0]) : "f"(nan), "f"(1.0f));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y[1]) : "f"(1.0f), "f"(nan));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y[2]) : "f"(2.0f), "f"(-1.0f));
})");
  const Buffer<float> y(3);
  REQUIRE(kernel.run({1, 1}, y.data()) == 0);
  REQUIRE(std::isnan(y.read()[0]) && std::isnan(y.read()[1]) && y.read()[2] == -1);
}

TEST(conversions_round_to_nearest_even) {
  const Kernel kernel(R"(
extern "C" __global__ void test(const float* x, u16* half, u16* brain, float* back, u32* pairs) {
  const int i = threadIdx.x;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half[i]) : "f"(x[i]));
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(brain[i]) : "f"(x[i]));
  asm("cvt.f32.f16 %0, %1;" : "=f"(back[i]) : "h"(half[i]));
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pairs[2 * i]) : "f"(x[i]), "f"(1.0f));
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pairs[2 * i + 1]) : "f"(x[i]), "f"(1.0f));
})");
  const Buffer<float> x(std::vector<float>{1, -2.5F, 1.00048828125F, 1.00390625F, 70000,
                                           5.9604645e-8F, NAN, infinity});
  const Buffer<uint16_t> half(8), brain(8);
  const Buffer<float> back(8);
  const Buffer<uint32_t> pairs(16);
  REQUIRE(kernel.run({1, 8}, x.data(), half.data(), brain.data(), back.data(), pairs.data()) == 0);
  const std::vector<uint16_t> h = half.read(), b = brain.read();
  REQUIRE(h == (std::vector<uint16_t>{0x3C00, 0xC100, 0x3C00, 0x3C04, 0x7C00, 1, 0x7FFF, 0x7C00}));
  REQUIRE(b ==
          (std::vector<uint16_t>{0x3F80, 0xC020, 0x3F80, 0x3F80, 0x4789, 0x3380, 0x7FFF, 0x7F80}));
  REQUIRE(back.read()[1] == -2.5F && back.read()[5] == 5.9604645e-8F);
  for (unsigned i = 0; i < 8; ++i) {
    REQUIRE(pairs.read()[2 * i] == (uint32_t{h[i]} << 16 | 0x3C00));
    REQUIRE(pairs.read()[2 * i + 1] == (uint32_t{b[i]} << 16 | 0x3F80));
  }
}

TEST(products_of_bf16_pairs_are_rounded_once) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* r, u32 a, u32 b) {
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(*r) : "r"(a), "r"(b));
})");
  const Buffer<uint32_t> r(1);
  // 1.0078125^2 = 1.01568603515625 lies between 1.015625 and 1.0234375.
  REQUIRE(kernel.run({1, 1}, r.data(), 0x3F813F81u, 0x40003F81u) == 0);
  REQUIRE(r.read()[0] == 0x40013F82u);
}

TEST(halves_of_a_register_are_its_low_and_high_bits) {
  const Kernel kernel(R"(
extern "C" __global__ void test(float* y, u32 pair) {
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, low;\n}"
      : "=f"(y[0]) : "r"(pair));
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, high;\n}"
      : "=f"(y[1]) : "r"(pair));
})");
  const Buffer<float> y(2);
  REQUIRE(kernel.run({1, 1}, y.data(), 0x40003C00u) == 0);
  REQUIRE(y.read()[0] == 1 && y.read()[1] == 2);
}

TEST(special_registers) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  u32 bytes, rank;
  asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  y[2 * blockIdx.x] = bytes;
  y[2 * blockIdx.x + 1] = rank;
})");
  const Buffer<uint32_t> y(8);
  REQUIRE(kernel.run({4, 1, 100, 2}, y.data()) == 0);
  REQUIRE(y.read() == (std::vector<uint32_t>{100, 0, 100, 1, 100, 0, 100, 1}));
}

TEST(an_instruction_that_is_not_modelled_is_named) {
  const test::Compiled compiled = test::compile(
      "\nextern \"C\" __global__ void test(int* x) {\n"
      "  asm(\"popc.b32 %0, %0;\" : \"+r\"(x[0]));\n}\n");
  REQUIRE(compiled.result != 0);
  REQUIRE(compiled.log.find("test.cu(3)") != std::string::npos);
  REQUIRE(compiled.log.find("\"popc.b32\"") != std::string::npos);
}

TEST(errors_of_the_language_have_their_line) {
  const test::Compiled compiled = test::compile("extern \"C\" __global__ void test() { x = 1; }");
  REQUIRE(compiled.result != 0 && compiled.log.find("test.cu:1") != std::string::npos);
}

}  // namespace
