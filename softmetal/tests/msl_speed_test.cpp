#include <chrono>

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
  threads_per_second();
  return report();
}
