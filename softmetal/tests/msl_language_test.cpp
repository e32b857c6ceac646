#include <algorithm>
#include <cmath>

#include "msl_harness.hpp"

// What MSL means differently from C++ with vector extensions.

namespace softmetal::test {
namespace {

/// Comparisons give bool vectors, true is 1, in functions, templates and conversions alike.
void vector_comparisons() {
  Program p(kHeader + R"(
static int count(bool4 b) { return int(b.x) + int(b.y) + int(b.z) + int(b.w); }
template <typename V> static V fold(V a, V b) { return select(a, b, a < b); }
kernel void k(device const float4* in [[buffer(0)]], device float* out [[buffer(1)]],
              device bool4* flags [[buffer(2)]]) {
  float4 a = in[0], b = in[1];
  bool4 less = a < b;
  out[0] = float(count(less));
  out[1] = float(count(a >= b));
  out[2] = dot(float4(a < b), float4(1, 10, 100, 1000));
  out[3] = float(any(a < b)) + 2 * float(all(a < b)) + 4 * float(all(!(a < 1.0f) || less));
  float4 m = fold(a, b);
  out[4] = m.x + 10 * m.y + 100 * m.z + 1000 * m.w;
  out[5] = fold(2.0f, 3.0f);
  auto same = a == b;
  out[6] = float(int4(same).y) + float((a != b).x);
  flags[0] = (a < b) && bool4(true, true, false, false);
  int3 i = int3(5, -1, 2);
  half2 h = half2(1.0h, 3.0h);
  out[7] = float(any((i > 2).yz)) + 2 * float((h < half(2)).x) + 4 * float(sizeof(flags[0]));
  vec<bool, 3> v = i.xyz == int3(5, 0, 2);
  out[8] = float(v.x) + 2 * float(v.y) + 4 * float(v[2]);
})",
            "k");
  std::vector<float> in{1, 5, 3, 4, 2, 5, 1, 9}, out(9);
  std::vector<std::uint8_t> flags(4, 9);
  EXPECT_CLEAN(p.buffer(0, in).buffer(1, out).buffer(2, flags).groups({1}, {1}));
  EXPECT(out[0] == 2 && out[1] == 2);
  EXPECT(out[2] == 1001);
  EXPECT(out[3] == 5);
  EXPECT(out[4] == 2 + 50 + 300 + 9000 && out[5] == 3);
  EXPECT(out[6] == 2);
  EXPECT((flags == std::vector<std::uint8_t>{1, 0, 0, 0}));
  EXPECT(out[7] == 2 + 16);
  EXPECT(out[8] == 5);
}

/// Threads that write different components of one vector do not disturb each other.
void component_writes() {
  Program p(kHeader + R"(
struct Pair { float2 a; half4 b; };
kernel void k(device float4* out [[buffer(0)]], device Pair* pairs [[buffer(1)]],
              uint t [[thread_index_in_threadgroup]]) {
  threadgroup int4 shared[2];
  threadgroup float3 three;
  if (t < 8) shared[t / 4][t % 4] = int(t);
  if (t == 0) three.x = 1;
  if (t == 1) three.yz = float2(2, 3);
  if (t == 0) out[0].x = 1;
  if (t == 1) out[0].y += 2;
  if (t == 2) out[0].wz = float2(4, 3);
  if (t == 3) pairs[0].b.z = half(7);
  if (t == 4) pairs[0].b.x = half(5);
  if (t == 5) pairs[0].a.y = 6;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (t == 0) out[1] = float4(shared[1] - shared[0]);
  if (t == 1) out[2] = float4(three, 0);
})",
            "k");
  std::vector<float> out(12);
  std::vector<std::uint16_t> pairs(8, 0);
  EXPECT_CLEAN(p.buffer(0, out).buffer(1, pairs).groups({1}, {32}));
  EXPECT((out == std::vector<float>{1, 2, 3, 4, 4, 4, 4, 4, 1, 2, 3, 0}));
  EXPECT(pairs[4] == 0x4500 && pairs[6] == 0x4700 && pairs[5] == 0 && pairs[3] == 0x40c0);
}

/// But one that writes the whole vector races with one that writes a component.
void whole_writes_still_race() {
  Program p(kHeader + R"(
kernel void k(device float4* out [[buffer(0)]], uint t [[thread_index_in_threadgroup]]) {
  if (t == 0) out[0].x = 1;
  if (t == 1) {
    float4 v = float4(2);
    out[0] = v;
  }
})",
            "k");
  std::vector<float> out(4);
  const auto result = p.buffer(0, out).groups({1}, {32});
  EXPECT(result.findings.size() == 1 && result.findings[0].kind == FindingKind::device_race);
}

void matrices() {
  Program p(kHeader + R"(
constant float2x2 kTurn = float2x2(float2(0, 1), float2(-1, 0));
kernel void k(device const float4x4* m [[buffer(0)]], device float* out [[buffer(1)]],
              constant float3x3& c [[buffer(2)]], device float4x4* product [[buffer(3)]]) {
  float4x4 a = m[0], b = m[1];
  product[0] = a * b;
  product[1] = transpose(a) - 2.0f * b;
  float4 v = a * float4(1, 2, 3, 4) + float4(1, 2, 3, 4) * a;
  out[0] = v.x;
  out[1] = v.w;
  out[2] = determinant(a);
  out[3] = determinant(c);
  out[4] = a[1][2] + c[2].x;
  float2x3 r = float2x3(float3(1, 2, 3), float3(4, 5, 6));
  float2 w = float3(1, 1, 1) * r;
  out[5] = (r * float2(1, 2)).z + w.y;
  half2x2 h = half2x2(2.0h);
  out[6] = float((h * half2x2(1, 2, 3, 4))[1].x);
  out[7] = (kTurn * float2(1, 0)).y;
  product[1][3][0] = 42;
})",
            "k");
  auto m = ramp(32);
  std::vector<float> out(8), c{2, 0, 0, 0, 1, 3, 1, 0, -1, 4, 4, 0}, product(32);
  EXPECT_CLEAN(p.buffer(0, m).buffer(1, out).buffer(2, c).buffer(3, product).groups({1}, {1}));
  auto a = [&](int row, int column) { return double(m[column * 4 + row]); };
  auto b = [&](int row, int column) { return double(m[16 + column * 4 + row]); };
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      double sum = 0;
      for (int k = 0; k < 4; ++k) sum += a(i, k) * b(k, j);
      EXPECT_NEAR(product[j * 4 + i], sum, 1e-5);
      const double difference = i == 0 && j == 3 ? 42 : a(j, i) - 2 * b(i, j);
      EXPECT_NEAR(product[16 + j * 4 + i], difference, 1e-5);
    }
  }
  double x = 0, w = 0;
  for (int k = 0; k < 4; ++k) {
    x += a(0, k) * (k + 1) + a(k, 0) * (k + 1);
    w += a(3, k) * (k + 1) + a(k, 3) * (k + 1);
  }
  EXPECT_NEAR(out[0], x, 1e-4);
  EXPECT_NEAR(out[1], w, 1e-4);
  double determinant = 0;
  int order[] = {0, 1, 2, 3};
  do {
    int swaps = 0;
    for (int i = 0; i < 4; ++i)
      for (int j = i + 1; j < 4; ++j) swaps += order[i] > order[j] ? 1 : 0;
    double term = swaps % 2 == 0 ? 1 : -1;
    for (int i = 0; i < 4; ++i) term *= a(i, order[i]);
    determinant += term;
  } while (std::next_permutation(order, order + 4));
  EXPECT_NEAR(out[2], determinant, 1e-4);
  EXPECT_NEAR(out[3], 2 * (3 * 4 - 1 * 4), 1e-5);
  EXPECT_NEAR(out[4], a(2, 1) + c[8], 1e-6);
  EXPECT(out[5] == 3 + 12 + 15);
  EXPECT(out[6] == 6);
  EXPECT(out[7] == 1);
}

/// One name, several kernels: told apart by host_name, and by arguments that are deduced.
void overloaded_kernels() {
  const std::string source = kHeader + R"(
namespace n {
struct Scale { float by; };
[[host_name("scale_one")]] kernel void scale(device float* x [[buffer(0)]],
                                             uint i [[thread_position_in_grid]]) { x[i] *= 2; }
[[host_name("scale_by")]] kernel void scale(device float* x [[buffer(0)]],
                                            constant Scale& s [[buffer(1)]],
                                            uint i [[thread_position_in_grid]]) { x[i] *= s.by; }
}
template <typename T, int N> struct Shift { T by[N]; };
template <typename T, int N>
[[kernel]] void shift(device T* x [[buffer(0)]], constant Shift<T, N>& s [[buffer(1)]],
                      uint i [[thread_position_in_grid]]) { x[i] += s.by[N - 1]; }
template <typename T>
[[kernel]] void shift(device T* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] += 1; }
template [[host_name("shift_2")]] [[kernel]] void shift(device float*, constant Shift<float, 2>&,
                                                        uint);
template [[host_name("shift_one")]] [[kernel]] void shift(device float* x, uint i);
template [[host_name("shift_int")]] [[kernel]] void shift<int>(device int* x, uint i);
)";
  std::vector<float> x{1, 2, 3, 4};
  struct {
    float by[2];
  } by{{100, 10}};
  EXPECT_CLEAN(Program(source, "scale_one").buffer(0, x).groups({1}, {4}));
  EXPECT_CLEAN(Program(source, "scale_by").buffer(0, x).bytes(1, 3.0f).groups({1}, {4}));
  EXPECT_CLEAN(Program(source, "shift_2").buffer(0, x).bytes(1, by).groups({1}, {4}));
  EXPECT_CLEAN(Program(source, "shift_one").buffer(0, x).groups({1}, {4}));
  EXPECT((x == std::vector<float>{17, 23, 29, 35}));
  std::vector<int> i{1, 2};
  EXPECT_CLEAN(Program(source, "shift_int").buffer(0, i).groups({1}, {2}));
  EXPECT((i == std::vector<int>{2, 3}));
}

/// A simdgroup operation in an include is reported with the include's name.
void findings_in_includes() {
  Program p(kHeader + R"(
#line 7 "reduce.h"
static float product(float x) {
  simdgroup_float8x8 m = simdgroup_float8x8(1.0f);
  simdgroup_multiply_accumulate(m, m, m, m);
  return m.thread_elements()[0] * x;
}
#line 40 "program_source"
kernel void k(device float* out [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
  if (i < 8) out[i] = product(2);
})",
            "k");
  std::vector<float> out(32);
  const auto result = p.buffer(0, out).groups({1}, {32});
  EXPECT(result.findings.size() == 1);
  if (result.findings.empty()) return;
  EXPECT(result.findings[0].kind == FindingKind::divergent_collective);
  EXPECT(result.findings[0].file == "reduce.h" && result.findings[0].line == 9);
}

/// Structs with converting constructors in ?:, and braces for a vector parameter.
void conditionals_and_braces() {
  Program p(kHeader + R"(
struct Complex {
  float re, im;
  Complex() thread : re(0), im(0) {}
  Complex() threadgroup : re(0), im(0) {}
  template <typename U> constexpr Complex(U x) thread : re(float(x)), im(0) {}
  template <typename U> constexpr Complex(U x) device : re(float(x)), im(0) {}
  constexpr Complex(float a, float b) thread : re(a), im(b) {}
};
static uint flat(uint3 p, uint3 n) { return (p.z * n.y + p.y) * n.x + p.x; }
static float first(float2 v, device const float*) { return v.x; }
kernel void k(device const Complex* in [[buffer(0)]], device float* out [[buffer(1)]],
              uint i [[thread_position_in_grid]]) {
  threadgroup Complex part[4];
  part[i] = i < 2 ? in[i] : Complex(7, 8);
  Complex c = i == 3 ? part[i] : in[0];
  device const float* none = i < 9 ? nullptr : out;
  out[i * 2] = c.re + part[i].im;
  out[i * 2 + 1] = float(flat({i, 1, 2}, {4, 3, 2})) + first({0.5f, 1.0f}, none);
})",
            "k");
  std::vector<float> in{1, 2, 3, 4}, out(8);
  EXPECT_CLEAN(p.buffer(0, in).buffer(1, out).groups({1}, {4}));
  EXPECT((out == std::vector<float>{3, 28.5f, 5, 29.5f, 9, 30.5f, 15, 31.5f}));
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  for (auto test : {vector_comparisons, component_writes, whole_writes_still_race, matrices,
                    overloaded_kernels, findings_in_includes, conditionals_and_braces}) {
    try {
      test();
    } catch (const std::exception& e) {
      expect(false, std::string("exception: ") + e.what(), __FILE__, __LINE__);
    }
  }
  return report();
}
