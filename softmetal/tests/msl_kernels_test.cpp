#include <algorithm>
#include <cmath>

#include "msl_harness.hpp"

// Programs that everybody writes, compared with double precision on the host.

namespace softmetal::test {
namespace {

std::uint16_t half_bits(float x) {
  const auto h = static_cast<_Float16>(x);
  std::uint16_t b = 0;
  std::memcpy(&b, &h, 2);
  return b;
}
std::uint16_t bfloat_bits(float x) {
  std::uint32_t u = 0;
  std::memcpy(&u, &x, 4);
  return static_cast<std::uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/// C = A B by 8x8 matrices through threadgroup memory, 4 simdgroups, in three types.
void tiled_products() {
  const std::string source = kHeader + R"(
constant constexpr int kTile = 32;
template <typename T>
[[kernel]] void mm(device const T* a [[buffer(0)]], device const T* b [[buffer(1)]],
                   device float* c [[buffer(2)]], constant int& n [[buffer(3)]],
                   threadgroup T* tiles [[threadgroup(0)]],
                   uint2 g [[threadgroup_position_in_grid]],
                   ushort t [[thread_index_in_threadgroup]],
                   ushort sg [[simdgroup_index_in_threadgroup]]) {
  threadgroup T* x = tiles;
  threadgroup T* y = tiles + kTile * kTile;
  simdgroup_matrix<float, 8, 8> sum[4];
  for (auto& s : sum) s = simdgroup_matrix<float, 8, 8>(0.0f);
  for (int k = 0; k < n; k += kTile) {
    for (int i = t; i < kTile * kTile; i += 128) {
      const int row = i / kTile, column = i % kTile;
      x[i] = a[(int(g.y) * kTile + row) * n + k + column];
      y[i] = b[(k + row) * n + int(g.x) * kTile + column];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int kk = 0; kk < kTile; kk += 8) {
      simdgroup_matrix<T, 8, 8> p, q;
      simdgroup_load(p, x + sg * 8 * kTile + kk, kTile);
      for (int j = 0; j < 4; ++j) {
        simdgroup_load(q, y + kk * kTile + j * 8, kTile);
        simdgroup_multiply_accumulate(sum[j], p, q, sum[j]);
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int j = 0; j < 4; ++j)
    simdgroup_store(sum[j], c + (int(g.y) * kTile + sg * 8) * n + int(g.x) * kTile + j * 8, n);
}
template [[host_name("float")]] [[kernel]] decltype(mm<float>) mm<float>;
template [[host_name("half")]] [[kernel]] decltype(mm<half>) mm<half>;
template [[host_name("bfloat")]] [[kernel]] decltype(mm<bfloat>) mm<bfloat>;
)";
  constexpr int n = 64;
  const auto af = ramp(n * n), bf = ramp(n * n, 2);  // exact in all three types
  for (const char* type : {"float", "half", "bfloat"}) {
    Program p(source, type);
    std::vector<float> a = af, b = bf, c(n * n);
    std::vector<std::uint16_t> a16(n * n), b16(n * n);
    const bool wide = std::string(type) == "float";
    for (std::size_t i = 0; i < a.size(); ++i) {
      a16[i] = std::string(type) == "half" ? half_bits(a[i]) : bfloat_bits(a[i]);
      b16[i] = std::string(type) == "half" ? half_bits(b[i]) : bfloat_bits(b[i]);
    }
    if (wide) p.buffer(0, a).buffer(1, b);
    if (!wide) p.buffer(0, a16).buffer(1, b16);
    p.buffer(2, c).bytes(3, n).threadgroup(0, 2 * 32 * 32 * (wide ? 4 : 2));
    EXPECT_CLEAN(p.groups({2, 2}, {128}));
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < n; ++k) sum += double(a[i * n + k]) * b[k * n + j];
        EXPECT_NEAR(c[i * n + j], sum, 1e-4);
      }
    }
  }
}

void histogram() {
  Program p(kHeader + R"(
kernel void h(device const uchar* in [[buffer(0)]], device atomic_uint* out [[buffer(1)]],
              uint i [[thread_position_in_grid]], uint t [[thread_index_in_threadgroup]]) {
  threadgroup atomic_uint bins[256];
  atomic_store_explicit(&bins[t], 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  atomic_fetch_add_explicit(&bins[in[i]], 1u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  atomic_fetch_add_explicit(&out[t], atomic_load_explicit(&bins[t], memory_order_relaxed),
                            memory_order_relaxed);
})",
            "h");
  std::vector<unsigned char> in(4096);
  std::vector<unsigned> out(256), expected(256);
  for (std::size_t i = 0; i < in.size(); ++i) {
    in[i] = static_cast<unsigned char>(i * i % 251);
    ++expected[in[i]];
  }
  EXPECT_CLEAN(p.buffer(0, in).buffer(1, out).groups({16}, {256}));
  EXPECT(out == expected);
}

void scan_and_atomics() {
  Program p(kHeader + R"(
kernel void scan(device const uint* in [[buffer(0)]], device uint* out [[buffer(1)]],
                 device atomic_uint* most [[buffer(2)]], device atomic_float* sum [[buffer(3)]],
                 uint i [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
                 uint sg [[simdgroup_index_in_threadgroup]]) {
  threadgroup uint totals[32];
  uint x = in[i], s = simd_prefix_inclusive_sum(x);
  if (lane == 31) totals[sg] = s;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (sg == 0) {
    uint t = lane < 8 ? totals[lane] : 0u;
    totals[lane] = simd_prefix_exclusive_sum(t);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  out[i] = s + totals[sg];
  atomic_fetch_max_explicit(most, x, memory_order_relaxed);
  atomic_fetch_add_explicit(sum, float(x), memory_order_relaxed);
})",
            "scan");
  std::vector<unsigned> in(256), out(256), most(1);
  std::vector<float> sum(1);
  unsigned total = 0;
  for (std::size_t i = 0; i < 256; ++i) in[i] = static_cast<unsigned>(i * 37 % 101);
  EXPECT_CLEAN(p.buffer(0, in).buffer(1, out).buffer(2, most).buffer(3, sum).groups({1}, {256}));
  for (std::size_t i = 0; i < 256; ++i) EXPECT(out[i] == (total += in[i]));
  EXPECT(most[0] == 100 && sum[0] == static_cast<float>(total));
}

void bitonic_sort() {
  Program p(kHeader + R"(
kernel void sort(device float* data [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
  threadgroup float t[512];
  t[i] = data[i]; t[i + 256] = data[i + 256];
  for (uint size = 2; size <= 512; size *= 2)
    for (uint step = size / 2; step > 0; step /= 2) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      uint a = 2 * step * (i / step) + i % step, b = a + step;
      bool up = (a & size) == 0;
      if ((t[a] > t[b]) == up) { float x = t[a]; t[a] = t[b]; t[b] = x; }
    }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  data[i] = t[i]; data[i + 256] = t[i + 256];
})",
            "sort");
  auto data = ramp(512);
  auto expected = data;
  std::sort(expected.begin(), expected.end());
  EXPECT_CLEAN(p.buffer(0, data).groups({1}, {256}));
  EXPECT(data == expected);
}

void transpose() {
  Program p(kHeader + R"(
kernel void tr(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
               constant uint2& size [[buffer(2)]], uint2 g [[threadgroup_position_in_grid]],
               uint2 t [[thread_position_in_threadgroup]]) {
  threadgroup float tile[16][17];
  uint2 at = g * 16 + t;
  if (all(at < size)) tile[t.y][t.x] = in[at.y * size.x + at.x];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  at = g.yx * 16 + t;
  if (at.x < size.y && at.y < size.x) out[at.y * size.y + at.x] = tile[t.x][t.y];
})",
            "tr");
  struct {
    unsigned x, y;
  } size{50, 37};
  auto in = ramp(50 * 37);
  std::vector<float> out(50 * 37);
  EXPECT_CLEAN(p.buffer(0, in).buffer(1, out).bytes(2, size).groups({4, 3}, {16, 16}));
  for (std::size_t y = 0; y < 37; ++y) {
    for (std::size_t x = 0; x < 50; ++x) EXPECT(out[x * 37 + y] == in[y * 50 + x]);
  }
}

void function_constants() {
  const std::string source = kHeader + R"(
constant bool has_bias [[function_constant(0)]];
constant float factor_given [[function_constant(1)]];
constant float factor = is_function_constant_defined(factor_given) ? factor_given : 2.0f;
constant bool both = has_bias && factor > 1.0f;
kernel void f(device float* out [[buffer(0)]],
              device const float* bias [[buffer(1), function_constant(has_bias)]],
              uint i [[thread_position_in_grid]]) {
  float x = float(i) * factor;
  if (has_bias) x += bias[i];
  if (both) x += 100.0f;
  out[i] = x;
}
kernel void other(device float* out [[buffer(0)]]) { out[0] = 1; })";
  std::vector<float> out(8), bias(8, 0.5f);
  ConstantValues values;
  values.by_index[0] = constant_value<std::uint8_t>(ScalarType::bool_, 0);
  Program off(source, "f", values);
  EXPECT(off.library->info("f").constants.size() == 2 &&
         off.library->info("other").constants.empty());
  EXPECT(!off.pipeline->info().bindings[1].active);
  EXPECT_CLEAN(off.buffer(0, out).groups({1}, {8}));
  EXPECT(out[3] == 6);
  values.by_index[0] = constant_value<std::uint8_t>(ScalarType::bool_, 1);
  values.by_name["factor_given"] = constant_value<float>(ScalarType::float_, 3);
  Program on(source, "f", values);
  EXPECT_CLEAN(on.buffer(0, out).buffer(1, bias).groups({1}, {8}));
  EXPECT(out[3] == 109.5f);
  for (const auto& bad : {ConstantValues{}, [] {
                            ConstantValues v;
                            v.by_index[0] = constant_value<float>(ScalarType::float_, 1);
                            return v;
                          }()}) {
    try {
      Program p(source, "f", bad);
      EXPECT(false);
    } catch (const CompileError& e) {
      EXPECT(e.diagnostics().at(0).line == 4);
    }
  }
}

void language() {
  Program p(kHeader + R"(
struct Point {
  packed_float3 at;
  half w;
  float length2() const { return dot(float3(at), float3(at)); }
};
template <typename T, int N> struct Tile { T v[N]; thread T& operator[](int i) { return v[i]; } };
kernel void l(device float* out [[buffer(0)]], device const Point* points [[buffer(1)]],
              uint i [[thread_position_in_grid]]) {
  Point p = points[i];
  float4 v = float4(p.at, float(p.w)), w = float4(v.xy, half2(1.0h, 2.0h));
  half4 h = half4(v);
  int4 n = int4(v * 2.0f);
  bfloat b = bfloat(1.00390625f);
  Tile<float, 3> tile;
  for (int k = 0; k < 3; ++k) tile[k] = v[k];
  v.zw = w.wz;
  bool4 less = v < w;
  tile[0] += any(less) ? 0.0f : 100.0f;
  auto twice = [](float x) { return 2 * x; };
  out[i * 8 + 0] = points[i].length2();
  out[i * 8 + 1] = float(h.x) + float(n.y);
  out[i * 8 + 2] = float(b);
  out[i * 8 + 3] = tile[0] + tile[1] + tile[2];
  out[i * 8 + 4] = v.z * 10 + v.w;
  out[i * 8 + 5] = as_type<float>(as_type<uint>(twice(1.5f)));
  out[i * 8 + 6] = float(popcount(0xf0u) + clz(1u)) + select(1.0f, 2.0f, i == 0);
  out[i * 8 + 7] =
      fast::exp2(3.0f) + precise::sqrt(16.0f) + clamp(7.0f, 0.0f, 1.0f) + max(2, int(i));
})",
            "l");
  struct Point {
    float x, y, z;
    std::uint16_t w;
    std::uint16_t gap;
  };
  std::vector<Point> points{{1, 2, 3, half_bits(4), 0}, {0.5f, 1, 2, half_bits(8), 0}};
  std::vector<float> out(16);
  EXPECT_CLEAN(p.buffer(0, out).buffer(1, points).groups({1}, {2}));
  const float expected[] = {14, 5, 1.0f, 6, 21, 3, 37, 15};
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(out[i], expected[i], 1e-6);
}

/// matmul2d, elements placed where the tensor says; so every layout gives the same product.
void cooperative_product() {
  CompileOptions options;
  options.language_version = "4.0";
  for (const char* layout : {"m5", "other"}) {
    setenv("SOFTMETAL_COOPERATIVE_LAYOUT", layout, 1);
    Program p("#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>\n" + kHeader + R"(
using namespace mpp::tensor_ops;
kernel void mm(device const half* a [[buffer(0)]], device const half* b [[buffer(1)]],
               device float* c [[buffer(2)]]) {
  constexpr auto d = matmul2d_descriptor(16, 32, 16, false, true, false,
                                         matmul2d_descriptor::mode::multiply_accumulate);
  matmul2d<d, execution_simdgroup> op;
  auto x = op.get_left_input_cooperative_tensor<half, half, float>();
  auto y = op.get_right_input_cooperative_tensor<half, half, float>();
  auto z = op.get_destination_cooperative_tensor<decltype(x), decltype(y), float>();
  for (int i = 0; i < x.get_capacity(); ++i) {
    auto at = x.get_multidimensional_index(i);
    x[i] = a[at[1] * 16 + at[0]];
  }
  for (int i = 0; i < y.get_capacity(); ++i) {
    auto at = y.get_multidimensional_index(i);
    y[i] = b[at[1] * 16 + at[0]];
  }
  for (int i = 0; i < z.get_capacity(); ++i) z[i] = 1.0f;
  op.run(x, y, z);
  for (int i = 0; i < z.get_capacity(); ++i) {
    auto at = z.get_multidimensional_index(i);
    c[at[1] * 32 + at[0]] = z[i];
  }
})",
              "mm", {}, true, options);
    const auto a = ramp(16 * 16), b = ramp(32 * 16, 2);
    std::vector<std::uint16_t> a16, b16;
    for (float x : a) a16.push_back(half_bits(x));
    for (float x : b) b16.push_back(half_bits(x));
    std::vector<float> c(16 * 32);
    const auto result = p.buffer(0, a16).buffer(1, b16).buffer(2, c).groups({1}, {32});
    EXPECT_CLEAN(result);
    EXPECT(result.counters.matrix_operations == 16);
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t j = 0; j < 32; ++j) {
        double sum = 1;
        for (std::size_t k = 0; k < 16; ++k) sum += double(a[i * 16 + k]) * b[j * 16 + k];
        EXPECT_NEAR(c[i * 32 + j], sum, 1e-4);
      }
    }
  }
  unsetenv("SOFTMETAL_COOPERATIVE_LAYOUT");
}

void uneven_grid() {
  Program p(kHeader + R"(
kernel void u(device uint* out [[buffer(0)]], uint2 i [[thread_position_in_grid]],
              uint2 n [[threads_per_grid]], uint2 size [[threads_per_threadgroup]],
              uint2 full [[dispatch_threads_per_threadgroup]]) {
  out[i.y * n.x + i.x] = size.x * 100 + full.x;
})",
            "u");
  std::vector<unsigned> out(10 * 3);
  EXPECT_CLEAN(p.buffer(0, out).threads({10, 3}, {8, 2}));
  for (std::size_t i = 0; i < 30; ++i) EXPECT(out[i] == (i % 10 < 8 ? 808u : 208u));
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  int broken = 0;
  for (auto* f : {tiled_products, histogram, scan_and_atomics, bitonic_sort, transpose,
                  function_constants, language, cooperative_product, uneven_grid}) {
    try {
      f();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "exception: %s\n", e.what());
      ++broken;
    }
  }
  return report() + broken;
}
