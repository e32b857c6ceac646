#include <algorithm>
#include <chrono>
#include <cmath>

#include "msl_harness.hpp"

// Prints how fast kernels run; asserts only what they compute.

namespace softmetal::test {
namespace {

constexpr const char* kProduct = R"(
kernel void mm(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],
               device float* c [[buffer(2)]], constant int& n [[buffer(3)]],
               uint2 g [[threadgroup_position_in_grid]]) {
  simdgroup_float8x8 sum[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) sum[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (int k = 0; k < n; k += 8) {
    simdgroup_float8x8 x[4], y[4];
    for (int i = 0; i < 4; ++i) simdgroup_load(x[i], a + (g.y * 32 + i * 8) * n + k, n);
    for (int j = 0; j < 4; ++j) simdgroup_load(y[j], b + k * n + g.x * 32 + j * 8, n);
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) simdgroup_multiply_accumulate(sum[i][j], x[i], y[j], sum[i][j]);
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      simdgroup_store(sum[i][j], c + (g.y * 32 + i * 8) * n + g.x * 32 + j * 8, n);
})";

/// C = A B by blocks of 64x64x64 through threadgroup memory; four simdgroups of 4x4 matrices.
constexpr const char* kTiled = R"(
template <typename T>
[[kernel]] void tiled(device const T* a [[buffer(0)]], device const T* b [[buffer(1)]],
                      device float* c [[buffer(2)]], constant int& n [[buffer(3)]],
                      threadgroup T* x [[threadgroup(0)]], threadgroup T* y [[threadgroup(1)]],
                      uint2 g [[threadgroup_position_in_grid]],
                      ushort t [[thread_index_in_threadgroup]],
                      ushort sg [[simdgroup_index_in_threadgroup]]) {
  const int row0 = int(g.y) * 64, column0 = int(g.x) * 64;
  const int row = sg / 2 * 32, column = sg % 2 * 32;
  simdgroup_matrix<float, 8, 8> sum[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) sum[i][j] = simdgroup_matrix<float, 8, 8>(0.0f);
  for (int k = 0; k < n; k += 64) {
    for (int i = t; i < 64 * 16; i += 128) {
      const int r = i / 16, q = i % 16 * 4;
      *(threadgroup vec<T, 4>*)(x + r * 64 + q) =
          *(device const vec<T, 4>*)(a + (row0 + r) * n + k + q);
      *(threadgroup vec<T, 4>*)(y + r * 64 + q) =
          *(device const vec<T, 4>*)(b + (k + r) * n + column0 + q);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int kk = 0; kk < 64; kk += 8) {
      simdgroup_matrix<T, 8, 8> p[4], q[4];
      for (int i = 0; i < 4; ++i) simdgroup_load(p[i], x + (row + i * 8) * 64 + kk, 64);
      for (int j = 0; j < 4; ++j) simdgroup_load(q[j], y + kk * 64 + column + j * 8, 64);
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) simdgroup_multiply_accumulate(sum[i][j], p[i], q[j], sum[i][j]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      simdgroup_store(sum[i][j], c + (row0 + row + i * 8) * n + column0 + column + j * 8, n);
}
template [[host_name("tiled_float")]] [[kernel]] decltype(tiled<float>) tiled<float>;
template [[host_name("tiled_half")]] [[kernel]] decltype(tiled<half>) tiled<half>;
)";

double seconds(auto&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void product(bool instrumented) {
  std::shared_ptr<Program> p;
  const double compile = seconds([&] {
    p = std::make_shared<Program>(kHeader + kProduct, "mm", ConstantValues{}, instrumented);
  });
  const int n = instrumented ? 128 : 256;
  const auto un = static_cast<std::size_t>(n);
  auto a = ramp(un * un), b = ramp(un * un);
  std::vector<float> c(un * un);
  p->options.workers = 1;
  p->buffer(0, a).buffer(1, b).buffer(2, c).bytes(3, n);
  double best = 1e9;
  DispatchResult result;
  for (int i = 0; i < 3; ++i) {
    best = std::min(best, seconds([&] {
                      result = p->groups(
                          {static_cast<std::uint32_t>(n / 32), static_cast<std::uint32_t>(n / 32)},
                          {32});
                    }));
  }
  EXPECT_CLEAN(result);
  double sum = 0;
  for (std::size_t k = 0; k < un; ++k) sum += double(a[5 * un + k]) * b[k * un + 7];
  EXPECT_NEAR(c[5 * un + 7], sum, 1e-3);
  const auto operations = static_cast<double>(result.counters.matrix_operations);
  std::printf("%s: %.2f M matrix operations/s/core, compile %.2f s\n",
              instrumented ? "checked" : "plain", operations / best / 1e6, compile);
}

/// `a` as the element type that is asked for.
template <typename T>
std::vector<T> as(const std::vector<float>& a) {
  std::vector<T> out;
  for (float x : a) out.push_back(static_cast<T>(x));
  return out;
}

template <typename T>
void tiled(const char* kernel, bool instrumented) {
  Program p(kHeader + kTiled, kernel, {}, instrumented);
  const int n = instrumented ? 128 : 256;
  const auto un = static_cast<std::size_t>(n);
  const auto af = ramp(un * un), bf = ramp(un * un, 2);
  auto a = as<T>(af), b = as<T>(bf);
  std::vector<float> c(un * un);
  p.options.workers = 1;
  p.buffer(0, a).buffer(1, b).buffer(2, c).bytes(3, n);
  p.threadgroup(0, 64 * 64 * sizeof(T)).threadgroup(1, 64 * 64 * sizeof(T));
  const auto blocks = static_cast<std::uint32_t>(n / 64);
  double best = 1e9;
  DispatchResult result;
  for (int i = 0; i < 5; ++i) {
    best = std::min(best, seconds([&] { result = p.groups({blocks, blocks}, {128}); }));
  }
  EXPECT_CLEAN(result);
  double worst = 0;
  for (std::size_t i = 0; i < un; i += 37) {
    for (std::size_t j = 0; j < un; j += 11) {
      double sum = 0;
      for (std::size_t k = 0; k < un; ++k) sum += double(af[i * un + k]) * bf[k * un + j];
      worst = std::max(worst, std::abs(sum - c[i * un + j]));
    }
  }
  EXPECT(worst < 1e-3);
  const auto operations = static_cast<double>(result.counters.matrix_operations);
  std::printf("%s, %s: %.2f M matrix operations/s/core\n", kernel,
              instrumented ? "checked" : "plain", operations / best / 1e6);
}

/// A text of 300 lines and more that nobody compiled before.
std::string long_text() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  std::string text = kHeader + "constant int kRun = " + std::to_string(now % 1000000) + ";\n";
  text += "template <typename T> struct Pair { T a, b; };\n";
  for (int i = 0; i < 27; ++i) {
    const std::string n = std::to_string(i);
    text += "template <typename T, int n>\nstatic float step" + n +
            "(thread T (&x)[n], float y) {\n  float sum = 0;\n"
            "  for (int i = 0; i < n; ++i) {\n    x[i] = exp2(x[i] - y) * " +
            n +
            ";\n    sum += x[i] > 0.5f ? x[i] : fma(x[i], y, 1.0f);\n  }\n"
            "  const float4 v = float4(x[0], x[1], sum, y);\n"
            "  return simd_sum(dot(v.wzyx, v)) + simd_max(sum);\n}\n";
  }
  text +=
      "kernel void long_one(device float* out [[buffer(0)]],\n"
      "                     uint i [[thread_position_in_grid]]) {\n"
      "  float x[4] = {out[i], out[i + 1], 2, 3};\n  float sum = kRun;\n"
      "  simdgroup_float8x8 m = simdgroup_float8x8(1.0f);\n";
  for (int i = 0; i < 27; ++i) text += "  sum += step" + std::to_string(i) + "(x, sum);\n";
  return text +
         "  simdgroup_multiply_accumulate(m, m, m, m);\n"
         "  out[i] = sum + m.thread_elements()[0];\n}\n";
}

void compile_time() {
  for (const bool instrumented : {false, true}) {
    const std::string text = long_text();
    const auto lines = std::count(text.begin(), text.end(), '\n');
    const double t = seconds([&] { Program(text, "long_one", ConstantValues{}, instrumented); });
    std::printf("compile a kernel of %d lines, %s, cold: %.2f s\n", static_cast<int>(lines),
                instrumented ? "checked" : "plain", t);
  }
}

void threads_per_second() {
  Program p(kHeader +
                "kernel void f(device float* o [[buffer(0)]], uint i [[thread_position_in_grid]])"
                " { o[i] = float(i); }",
            "f", {}, false);
  std::vector<float> o(1 << 20);
  p.options.workers = 1;
  p.buffer(0, o);
  const double t = seconds([&] { p.groups({1 << 12}, {256}); });
  EXPECT(o[777777] == 777777);
  std::printf("threads: %.1f M/s/core\n", 1.048576 / t);
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  product(false);
  product(true);
  for (const bool instrumented : {false, true}) {
    tiled<float>("tiled_float", instrumented);
    tiled<_Float16>("tiled_half", instrumented);
  }
  compile_time();
  threads_per_second();
  return report();
}
