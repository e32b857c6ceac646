#include <cmath>

#include "msl_harness.hpp"

// matmul2d on tensors in memory, by one simdgroup and by several, in both layouts of cooperative
// tensors, compared with double precision.

namespace softmetal::test {
namespace {

const std::string kTensorHeader =
    "#include <metal_stdlib>\n#include <metal_tensor>\n"
    "#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>\n"
    "using namespace metal;\nusing namespace mpp::tensor_ops;\n";

CompileOptions version_4() {
  CompileOptions options;
  options.language_version = "4.0";
  return options;
}

std::uint16_t half_bits(float x) {
  const auto h = static_cast<_Float16>(x);
  std::uint16_t bits = 0;
  std::memcpy(&bits, &h, 2);
  return bits;
}

/// C (m x n) = A (m x k) times B, which is stored as n x k.
double worst_error(const std::vector<float>& a, const std::vector<float>& b,
                   const std::vector<float>& c, std::size_t m, std::size_t n, std::size_t k,
                   double add = 0) {
  double worst = 0;
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = add;
      for (std::size_t l = 0; l < k; ++l) sum += double(a[i * k + l]) * b[j * k + l];
      const double error = std::abs(sum - c[i * n + j]);
      if (!(error <= worst)) worst = std::isnan(error) ? HUGE_VAL : error;
    }
  }
  return worst;
}

/// Device memory, ragged edges, K from the tensors; 64x32 by `groups` simdgroups a threadgroup.
void device_tensors(int groups, const std::string& destination) {
  const std::string n_groups = std::to_string(groups);
  const std::string scope =
      groups == 1 ? "execution_simdgroup" : "execution_simdgroups<" + n_groups + ">";
  const std::string body =
      destination == "memory"
          ? "op.run(mA, mB, mC);"
          : "auto t = op.get_destination_cooperative_tensor<decltype(mA), decltype(mB), float>();"
            "for (int i = 0; i < t.get_capacity(); ++i) if (t.is_valid_element(i)) t[i] = 0;"
            "op.run(mA, mB, t); t.store(mC);";
  Program p(kTensorHeader + R"(
kernel void mm(device half* A [[buffer(0)]], device half* B [[buffer(1)]],
               device float* C [[buffer(2)]], constant int3& size [[buffer(3)]],
               uint2 g [[threadgroup_position_in_grid]]) {
  auto tA = tensor<device half, dextents<int32_t, 2>, tensor_inline>(
      A, dextents<int32_t, 2>(size.z, size.x));
  auto tB = tensor(B, dextents<int32_t, 2>(size.z, size.y), array<int32_t, 2>{1, size.z});
  auto tC = tensor<device float, dextents<int32_t, 2>, tensor_inline>(
      C, dextents<int32_t, 2>(size.y, size.x));
  constexpr auto desc = matmul2d_descriptor(64, 32, static_cast<int>(dynamic_extent), false, true,
                                            false, matmul2d_descriptor::mode::MODE);
  matmul2d<desc, SCOPE> op;
  auto mA = tA.slice(0, g.y * 64);
  auto mB = tB.slice(0, g.x * 32);
  auto mC = tC.slice(g.x * 32, g.y * 64);
  BODY
})",
            "mm", {}, true, [&] {
              CompileOptions options = version_4();
              options.macros = {
                  {"MODE", destination == "memory" ? "multiply" : "multiply_accumulate"},
                  {"SCOPE", scope},
                  {"BODY", body}};
              return options;
            }());
  constexpr std::size_t m = 70, n = 50, k = 40;
  const auto a = ramp(m * k), b = ramp(n * k, 2);
  std::vector<std::uint16_t> a16, b16;
  for (float x : a) a16.push_back(half_bits(x));
  for (float x : b) b16.push_back(half_bits(x));
  std::vector<float> c(m * n, NAN);
  const int size[4] = {m, n, k, 0};
  p.buffer(0, a16).buffer(1, b16).buffer(2, c).bytes(3, size);
  const auto threads = static_cast<std::uint32_t>(32 * groups);
  EXPECT_CLEAN(p.groups({2, 2}, {threads}));
  EXPECT(worst_error(a, b, c, m, n, k) < 1e-4);
}

/// Threadgroup memory, and a destination whose elements are asked where they are.
void threadgroup_tensors() {
  Program p(kTensorHeader + R"(
kernel void mm(device const float* A [[buffer(0)]], device const float* B [[buffer(1)]],
               device float* C [[buffer(2)]], uint t [[thread_index_in_threadgroup]]) {
  threadgroup float a[32 * 16], b[48 * 16];
  for (uint i = t; i < 32 * 16; i += 128) a[i] = A[i];
  for (uint i = t; i < 48 * 16; i += 128) b[i] = B[i];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  auto tA = tensor<threadgroup float, dextents<int32_t, 2>, tensor_inline>(
      a, extents<int32_t, 16, 32>());
  auto tB = tensor(b, extents<int32_t, 16, 48>());
  constexpr auto desc = matmul2d_descriptor(32, 48, 16, false, true, false,
                                            matmul2d_descriptor::mode::multiply_accumulate);
  matmul2d<desc, execution_simdgroups<4>> op;
  auto d = op.get_destination_cooperative_tensor<decltype(tA), decltype(tB), float>();
  for (int i = 0; i < d.get_capacity(); ++i) d[i] = 3;
  op.run(tA, tB, d);
  for (int i = 0; i < d.get_capacity(); ++i) {
    const auto at = d.get_multidimensional_index(i);
    if (d.is_valid_element(i)) C[at[1] * 48 + at[0]] = d[i];
  }
})",
            "mm", {}, true, version_4());
  auto a = ramp(32 * 16), b = ramp(48 * 16, 2);
  std::vector<float> c(32 * 48, NAN);
  EXPECT_CLEAN(p.buffer(0, a).buffer(1, b).buffer(2, c).groups({1}, {128}));
  EXPECT(worst_error(a, b, c, 32, 48, 16, 3) < 1e-4);
}

/// One cooperative operand, one in memory, a destination in memory that is added to.
void mixed_operands() {
  Program p(kTensorHeader + R"(
kernel void mm(device float* A [[buffer(0)]], device float* B [[buffer(1)]],
               device float* C [[buffer(2)]]) {
  constexpr auto desc = matmul2d_descriptor(16, 32, 16, false, true, false,
                                            matmul2d_descriptor::mode::multiply_accumulate);
  matmul2d<desc, execution_simdgroup> op;
  auto a = op.get_left_input_cooperative_tensor<float, float, float>();
  for (int i = 0; i < a.get_capacity(); ++i) {
    const auto at = a.get_multidimensional_index(i);
    a[i] = A[at[1] * 16 + at[0]];
  }
  auto tB = tensor(B, dextents<int32_t, 2>(16, 32));
  auto tC = tensor(C, dextents<int32_t, 2>(32, 16));
  op.run(a, tB, tC);
})",
            "mm", {}, true, version_4());
  auto a = ramp(16 * 16), b = ramp(32 * 16, 2);
  std::vector<float> c(16 * 32, 5);
  EXPECT_CLEAN(p.buffer(0, a).buffer(1, b).buffer(2, c).groups({1}, {32}));
  EXPECT(worst_error(a, b, c, 16, 32, 16, 5) < 1e-4);
}

/// Code that takes one layout for granted works with that one only.
void assumed_layout(bool works) {
  Program p(kTensorHeader + R"(
kernel void mm(device float* A [[buffer(0)]], device float* C [[buffer(1)]],
               uint lane [[thread_index_in_simdgroup]]) {
  constexpr auto desc = matmul2d_descriptor(16, 16, 16, false, false, false,
                                            matmul2d_descriptor::mode::multiply);
  matmul2d<desc, execution_simdgroup> op;
  auto t = tensor(A, dextents<int32_t, 2>(16, 16));
  auto d = op.get_destination_cooperative_tensor<decltype(t), decltype(t), float>();
  op.run(t, t, d);
  const int quad = lane / 4, row = (quad & 4) | (lane / 2 & 3);
  const int column = ((quad & 2) | (lane & 1)) * 4;
  for (int i = 0; i < 8; ++i) C[(row + i / 4 * 8) * 16 + column + i % 4] = d[i];
})",
            "mm", {}, true, version_4());
  auto a = ramp(256);
  std::vector<float> c(256, NAN), transposed(256);
  EXPECT_CLEAN(p.buffer(0, a).buffer(1, c).groups({1}, {32}));
  for (std::size_t i = 0; i < 256; ++i) transposed[i] = a[i % 16 * 16 + i / 16];
  EXPECT((worst_error(a, transposed, c, 16, 16, 16) < 1e-4) == works);
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  try {
    for (const char* layout : {"m5", "other"}) {
      setenv("SOFTMETAL_COOPERATIVE_LAYOUT", layout, 1);
      for (const int groups : {1, 2, 4}) {
        device_tensors(groups, "memory");
        device_tensors(groups, "cooperative");
      }
      threadgroup_tensors();
      mixed_operands();
      assumed_layout(std::string(layout) == "m5");
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return report();
}
