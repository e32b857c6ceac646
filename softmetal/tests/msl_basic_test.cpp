#include <cmath>

#include "msl_harness.hpp"

// The first things everybody writes.

namespace softmetal::test {
namespace {

void vector_add() {
  Program p(kHeader + R"(
kernel void add(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],
                device float* out [[buffer(2)]], constant uint& n [[buffer(3)]],
                uint i [[thread_position_in_grid]]) {
  if (i < n) out[i] = a[i] + b[i];
})",
            "add");
  auto a = ramp(1000), b = ramp(1000, 3);
  std::vector<float> out(1000, -1);
  EXPECT_CLEAN(p.buffer(0, a).buffer(1, b).buffer(2, out).bytes(3, 1000u).groups({8}, {128}));
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT(out[i] == a[i] + b[i]);
}

void group_reduction() {
  Program p(kHeader + R"(
kernel void reduce(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                   uint i [[thread_position_in_grid]], uint t [[thread_index_in_threadgroup]],
                   uint g [[threadgroup_position_in_grid]], uint n [[threads_per_threadgroup]]) {
  threadgroup float part[256];
  part[t] = in[i];
  for (uint step = n / 2; step > 0; step /= 2) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (t < step) part[t] += part[t + step];
  }
  if (t == 0) out[g] = part[0];
})",
            "reduce");
  auto in = ramp(1024);
  std::vector<float> out(4);
  EXPECT(p.pipeline->static_threadgroup_bytes() == 1024);
  EXPECT_CLEAN(p.buffer(0, in).buffer(1, out).groups({4}, {256}));
  for (std::size_t g = 0; g < 4; ++g) {
    double sum = 0;
    for (std::size_t i = 0; i < 256; ++i) sum += in[g * 256 + i];
    EXPECT_NEAR(out[g], sum, 1e-4);
  }
}

void simd_operations() {
  Program p(kHeader + R"(
kernel void s(device float* out [[buffer(0)]], uint i [[thread_index_in_threadgroup]],
              uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
  float x = float(lane);
  out[i * 8 + 0] = simd_sum(x);
  out[i * 8 + 1] = simd_max(x);
  out[i * 8 + 2] = simd_shuffle_xor(x, 1);
  out[i * 8 + 3] = simd_shuffle_up(x, 2);
  out[i * 8 + 4] = simd_prefix_exclusive_sum(x);
  out[i * 8 + 5] = simd_broadcast(x, 5) + float(sg);
  out[i * 8 + 6] = quad_sum(x);
  out[i * 8 + 7] = float(ulong(simd_ballot(lane % 2 == 0)));
})",
            "s");
  std::vector<float> out(64 * 8);
  EXPECT_CLEAN(p.buffer(0, out).groups({1}, {64}));
  for (std::size_t i = 0; i < 64; ++i) {
    const auto l = static_cast<float>(i % 32);
    const float* o = &out[i * 8];
    EXPECT(o[0] == 496 && o[1] == 31);
    EXPECT(o[2] == static_cast<float>((i % 32) ^ 1));
    EXPECT(o[3] == (l < 2 ? l : l - 2));
    EXPECT(o[4] == l * (l - 1) / 2);
    EXPECT(o[5] == 5 + static_cast<float>(i / 32));
    EXPECT(o[6] == static_cast<float>(i % 32 / 4 * 16 + 6));
    EXPECT(o[7] == static_cast<float>(0x55555555u));
  }
}

void matrix_product() {
  Program p(kHeader + R"(
template <typename T>
[[kernel]] void mm(device const T* a [[buffer(0)]], device const T* b [[buffer(1)]],
                   device float* c [[buffer(2)]], constant int& n [[buffer(3)]],
                   uint2 g [[threadgroup_position_in_grid]]) {
  simdgroup_matrix<float, 8, 8> sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (int k = 0; k < n; k += 8) {
    simdgroup_matrix<T, 8, 8> x, y;
    simdgroup_load(x, a + g.y * 8 * n + k, n);
    simdgroup_load(y, b + k * n + g.x * 8, n);
    simdgroup_multiply_accumulate(sum, x, y, sum);
  }
  simdgroup_store(sum, c + g.y * 8 * n + g.x * 8, n);
}
template [[host_name("mm_float")]] [[kernel]] void mm<float>(
    device const float*, device const float*, device float*, constant int&, uint2);
template [[host_name("mm_half")]] [[kernel]] decltype(mm<half>) mm<half>;
template [[host_name("mm_bfloat")]] [[kernel]] decltype(mm<bfloat>) mm<bfloat>;
)",
            "mm_float");
  EXPECT(p.library->function_names().size() == 3);
  EXPECT(p.library->info("mm_half").uses_simdgroup_matrix);
  constexpr int n = 32;
  auto a = ramp(n * n), b = ramp(n * n, 2);
  std::vector<float> c(n * n);
  const auto result = p.buffer(0, a).buffer(1, b).buffer(2, c).bytes(3, n).groups({4, 4}, {32});
  EXPECT_CLEAN(result);
  EXPECT(result.counters.matrix_operations == 64);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int k = 0; k < n; ++k) sum += double(a[i * n + k]) * b[k * n + j];
      EXPECT_NEAR(c[i * n + j], sum, 1e-4);
    }
  }
}

void errors_have_user_lines() {
  try {
    Program p(kHeader + "kernel void f(device float* o [[buffer(0)]]) {\n  o[0] = missing;\n}\n",
              "f");
    EXPECT(false);
  } catch (const CompileError& e) {
    EXPECT(!e.diagnostics().empty() && e.diagnostics()[0].line == 4);
    EXPECT(e.diagnostics()[0].file == "program_source");
  }
}

void warnings_are_kept() {
  for (int i = 0; i < 2; ++i) {  // the second comes from the cache
    Program p(
        kHeader + "kernel void w(device int* o [[buffer(0)]]) {\n  if (o[0] = 1) o[1] = 2;\n}\n",
        "w");
    EXPECT(p.library->warnings().size() == 1 && p.library->warnings()[0].line == 4);
  }
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  try {
    vector_add();
    group_reduction();
    simd_operations();
    matrix_product();
    errors_have_user_lines();
    warnings_are_kept();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return report();
}
