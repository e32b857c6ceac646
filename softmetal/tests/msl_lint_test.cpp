#include "../msl/lint.hpp"

#include <set>

#include "msl_harness.hpp"

// Each text breaks one rule on the line that is marked; its repaired twin breaks none.

namespace softmetal::test {
namespace {

struct Rule {
  const char* complaint;  // a part of the expected message
  const char* bug;
  const char* fixed;
  const char* version = "3.2";
};

// A `$` stands for a kernel's head, so that the rows stay short.
constexpr const char* kHead =
    "kernel void k(device float* out [[buffer(0)]], uint i [[thread_position_in_grid]])";

const Rule kRules[] = {
    {"double", "$ { double x = 1; out[i] = x; }", "$ { float x = 1; out[i] = x; }"},
    {"static local", "$ { static int n; out[i] = n; }", "$ { int n = 0; out[i] = n; }"},
    {"program scope", "int n = 3; $ { out[i] = n; }", "constant int n = 3; $ { out[i] = n; }"},
    {"lambdas", "$ { auto f = [](float x) { return x; }; out[i] = f(1); }", "$ { out[i] = 1; }",
     "3.1"},
    {"address space", "$ { float x = 1; float* p = &x; out[i] = *p; }",
     "$ { float x = 1; thread float* p = &x; out[i] = *p; }"},
    {"C-style cast", "$ { float4 v = (float4)(1.0f); out[i] = v.x; }",
     "$ { float4 v = float4(1.0f); out[i] = v.x; }"},
    {"private", "$ { out[i] = __metal_exp2(1.0f); }", "$ { out[i] = exp2(1.0f); }"},
    {"private", "$ { out[i] = __builtin_sqrtf(2.0f); }", "$ { out[i] = sqrt(2.0f); }"},
    {"new", "$ { int* p = new int; out[i] = *p; }", "$ { out[i] = 0; }"},
    {"goto", "$ { goto end; end: out[i] = 0; }", "$ { out[i] = 0; }"},
    {"language version 3.1", "$ { bfloat x = bfloat(1.0f); out[i] = x; }",
     "$ { out[i] = half(1.0f); }", "3.0"},
    {"language version 3.0", "kernel void k(device atomic_float* out [[buffer(0)]]) {}",
     "kernel void k(device atomic_uint* out [[buffer(0)]]) {}", "2.4"},
    {"mismatching address spaces", "$ { threadgroup float* p = (threadgroup float*)out; *p = i; }",
     "$ { device float* p = out; *p = i; }"},
    {"from device to thread", "void f(thread float& x) { x = 1; } $ { f(out[i]); }",
     "void f(device float& x) { x = 1; } $ { f(out[i]); }"},
    {"at most 30", "kernel void k(device float* o [[buffer(31)]]) {}",
     "kernel void k(device float* o [[buffer(30)]]) {}"},
    {"same buffer index",
     "kernel void k(device float* a [[buffer(1)]], device float* b [[buffer(1)]]) {}",
     "kernel void k(device float* a [[buffer(1)]], device float* b [[buffer(2)]]) {}"},
    {"must be uint", "kernel void k(float i [[thread_position_in_grid]]) {}",
     "kernel void k(ushort3 i [[thread_position_in_grid]]) {}"},
    {"must be uint or ushort", "kernel void k(uint2 i [[thread_index_in_simdgroup]]) {}",
     "kernel void k(uint i [[thread_index_in_simdgroup]]) {}"},
    {"needs an attribute", "kernel void k(uint i) {}",
     "kernel void k(uint i [[thread_position_in_grid]]) {}"},
    {"must point to device", "kernel void k(threadgroup float* t [[buffer(0)]]) {}",
     "kernel void k(threadgroup float* t [[threadgroup(0)]]) {}"},
    {"unknown attribute", "kernel void k(uint i [[thread_position]]) {}",
     "kernel void k(uint i [[thread_position_in_grid]]) {}"},
    {"read-only", "kernel void k(constant float* c [[buffer(0)]]) { c[0] = 1; }",
     "kernel void k(device float* c [[buffer(0)]]) { c[0] = 1; }"},
    {"defined twice", "kernel void k() {} namespace n { kernel void k() {} }",
     "kernel void k() {}"},
};

/// A statement with something newer than the language version; the older way is fine.
const Rule kVersions[] = {
    {"'max3' needs language version 2.1", "$ { out[i] = max3(1.0f, 2.0f, 3.0f); }",
     "$ { out[i] = max(1.0f, max(2.0f, 3.0f)); }", "2.0"},
    {"'reverse_bits' needs language version 2.1", "$ { out[i] = reverse_bits(i); }",
     "$ { out[i] = popcount(i); }", "2.0"},
    {"'simd_sum' needs language version 2.1", "$ { out[i] = simd_sum(1.0f); }",
     "$ { out[i] = simd_shuffle_xor(1.0f, 1); }", "2.0"},
    {"'quad_ballot' needs language version 2.1", "$ { out[i] = quad_ballot(true).all(); }",
     "$ { out[i] = quad_shuffle(1.0f, 1); }", "2.0"},
    {"'simdgroup_multiply' needs language version 2.3",
     "$ { simdgroup_float8x8 a(1), b(1); simdgroup_multiply(a, b, b); out[i] = 0; }",
     "$ { out[i] = 0; }", "2.2"},
    {"'quad_shuffle_and_fill_up' needs language version 2.4",
     "$ { out[i] = quad_shuffle_and_fill_up(1.0f, 2.0f, 1); }",
     "$ { out[i] = quad_shuffle_up(1.0f, 1); }", "2.3"},
    {"'atomic_max_explicit' needs language version 2.4",
     "kernel void k(device atomic_ulong* p [[buffer(0)]]) "
     "{ atomic_max_explicit(p, 1ul, memory_order_relaxed); }",
     "kernel void k(device atomic_uint* p [[buffer(0)]]) "
     "{ atomic_fetch_max_explicit(p, 1u, memory_order_relaxed); }",
     "2.3"},
    {"'nextafter' needs language version 3.1", "$ { out[i] = nextafter(1.0f, 2.0f); }",
     "$ { out[i] = fdim(1.0f, 2.0f); }", "3.0"},
    {"'atomic_thread_fence' needs language version 3.2",
     "$ { atomic_thread_fence(mem_flags::mem_device, memory_order_relaxed); out[i] = 0; }",
     "$ { threadgroup_barrier(mem_flags::mem_device); out[i] = 0; }", "3.1"},
    {"'memory_order_seq_cst' needs language version 3.2",
     "$ { auto o = memory_order_seq_cst; out[i] = float(o); }",
     "$ { auto o = memory_order_relaxed; out[i] = float(o); }", "3.1"},
    {"'cooperative_tensor' needs language version 4.0",
     "$ { cooperative_tensor<float, 16, 16> t; out[i] = t.get_capacity(); }", "$ { out[i] = 8; }",
     "3.2"},
    {"newer than language version 3.0", "$ { bfloat4 x = bfloat4(1.0f); out[i] = x.x; }",
     "$ { half4 x = half4(1.0h); out[i] = x.x; }", "3.0"},
};

/// Names that the standard library here happens to have, or C has, and MSL has not.
const Rule kNotMsl[] = {
    {"no C++ standard library",
     "namespace std { inline float f() { return 1; } } "
     "$ { out[i] = std::f(); }",
     "inline float f() { return 1; } $ { out[i] = f(); }"},
    {"'softmetal' is not a name", "$ { out[i] = softmetal::fract(1.5f); }",
     "$ { out[i] = fract(1.5f); }"},
    {"'make_index_sequence_of' is not a function", "$ { out[i] = make_index_sequence_of(1); }",
     "$ { out[i] = fmedian3(1.0f, 2.0f, 3.0f); }"},
    {"'round_even' is not a function",
     "namespace metal { } $ { out[i] = metal::round_even(1.5f); }",
     "$ { out[i] = metal::rint(1.5f); }"},
};

/// Every function of the language, called once, is no finding in the newest version.
constexpr const char* kAll = R"(
struct Own { float v; float max3(float x) { return x + v; } };
template <typename Op> static float apply(Op op, float x) { return op(x); }
kernel void all_of_it(device float* out [[buffer(0)]], device atomic_int* a [[buffer(1)]],
                      device atomic_ulong* b [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  float x = out[i], y = 0.5f, z = 2;
  float3 v = float3(x, y, z), w = v.zxy;
  int n = int(x), e;
  uint u = i;
  x += acos(y) + acosh(z) + asin(y) + asinh(y) + atan(y) + atan2(y, z) + atanh(y) + ceil(y);
  x += copysign(y, z) + cos(y) + cosh(y) + cospi(y) + divide(y, z) + exp(y) + exp2(y) + exp10(y);
  x += fabs(y) + abs(y) + fdim(y, z) + floor(y) + fma(x, y, z) + fmax(y, z) + fmax3(x, y, z);
  x += fmedian3(x, y, z) + fmin(y, z) + fmin3(x, y, z) + fmod(y, z) + fract(y) + frexp(y, e);
  x += ilogb(y) + ldexp(y, 2) + log(y) + log2(y) + log10(y) + max(y, z) + max3(x, y, z);
  x += median3(x, y, z) + min(y, z) + min3(x, y, z) + modf(y, z) + nextafter(y, z) + pow(y, z);
  x += powr(y, z) + rint(y) + round(y) + rsqrt(y) + sin(y) + sincos(y, z) + sinh(y) + sinpi(y);
  x += sqrt(y) + tan(y) + tanh(y) + tanpi(y) + trunc(y) + clamp(x, y, z) + mix(x, y, z);
  x += saturate(y) + sign(y) + smoothstep(y, z, x) + step(y, x) + fast::exp(y) + precise::log(z);
  n += abs(n) + addsat(n, 1) + clz(n) + ctz(n) + hadd(n, 2) + mad24(n, 2, 3) + madhi(n, 2, 3);
  n += madsat(n, 2, 3) + mul24(n, 2) + mulhi(n, 2) + popcount(n) + reverse_bits(n) + rhadd(n, 2);
  n += rotate(n, 2) + subsat(n, 2) + extract_bits(n, 1u, 3u) + insert_bits(n, 2, 1u, 3u);
  n += int(absdiff(n, 3)) + clamp(n, 1, 2) + max(n, 1) + max3(n, 1, 2) + median3(n, 1, 2);
  n += all(isfinite(v)) + any(isinf(v)) + isnan(x) + isnormal(x) + isordered(x, y) + signbit(x);
  n += isunordered(x, y) + any(isordered(v, w)) + any(not(isnan(v)));
  v = select(v, w, isnan(w)) + cross(v, w) + normalize(v) + reflect(v, w) + refract(v, w, 0.5f);
  v += faceforward(v, w, v);
  x += distance(v, w) + distance_squared(v, w) + dot(v, w) + length(v) + length_squared(v);
  x += determinant(float2x2(x)) + transpose(float2x3(v, w))[0].x;
  float4 c = unpack_unorm4x8_to_float(u) + unpack_unorm4x8_srgb_to_float(u);
  c += unpack_snorm4x8_to_float(u) + unpack_unorm10a2_to_float(u);
  c += float4(unpack_unorm4x8_to_half(u) + unpack_snorm4x8_to_half(u));
  c += float4(unpack_unorm4x8_srgb_to_half(u) + unpack_unorm10a2_to_half(u));
  c.xy += unpack_unorm2x16_to_float(u) + unpack_snorm2x16_to_float(u);
  c.xy += float2(unpack_unorm2x16_to_half(u) + unpack_snorm2x16_to_half(u));
  c.xyz += unpack_unorm565_to_float(ushort(u)) + float3(unpack_unorm565_to_half(ushort(u)));
  u += pack_float_to_unorm4x8(c) + pack_float_to_srgb_unorm4x8(c) + pack_float_to_snorm4x8(c);
  u += pack_float_to_unorm2x16(c.xy) + pack_float_to_snorm2x16(c.xy) + pack_float_to_unorm10a2(c);
  u += pack_float_to_unorm565(c.xyz) + pack_half_to_unorm4x8(half4(c));
  u += pack_half_to_srgb_unorm4x8(half4(c)) + pack_half_to_snorm4x8(half4(c));
  u += pack_half_to_unorm2x16(half2(c.xy)) + pack_half_to_snorm2x16(half2(c.xy));
  u += pack_half_to_unorm10a2(half4(c)) + pack_half_to_unorm565(half3(c.xyz)) + as_type<uint>(x);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  simdgroup_barrier(mem_flags::mem_threadgroup);
  atomic_thread_fence(mem_flags::mem_device, memory_order_relaxed, thread_scope_device);
  n += simd_all(true) + simd_any(true) + simd_is_first() + simd_is_helper_thread();
  n += int(ulong(simd_ballot(true))) + int(ulong(simd_active_threads_mask()));
  x += simd_broadcast(x, 1) + simd_broadcast_first(x) + simd_shuffle(x, 1) + simd_shuffle_up(x, 1);
  x += simd_shuffle_down(x, 1) + simd_shuffle_xor(x, 1) + simd_shuffle_rotate_up(x, 1);
  x += simd_shuffle_rotate_down(x, 1) + simd_shuffle_and_fill_up(x, y, 1);
  x += simd_shuffle_and_fill_down(x, y, 1) + simd_sum(x) + simd_product(x) + simd_min(x);
  x += simd_max(x) + simd_prefix_inclusive_sum(x) + simd_prefix_exclusive_sum(x);
  x += simd_prefix_inclusive_product(x) + simd_prefix_exclusive_product(x);
  u += simd_and(u) + simd_or(u) + simd_xor(u) + quad_and(u) + quad_or(u) + quad_xor(u);
  n += quad_all(true) + quad_any(true) + quad_is_first() + quad_ballot(true).any();
  n += quad_active_threads_mask().all() + quad_is_helper_thread();
  x += quad_broadcast(x, 1) + quad_broadcast_first(x) + quad_shuffle(x, 1) + quad_shuffle_up(x, 1);
  x += quad_shuffle_down(x, 1) + quad_shuffle_xor(x, 1) + quad_shuffle_rotate_up(x, 1);
  x += quad_shuffle_rotate_down(x, 1) + quad_shuffle_and_fill_up(x, y, 1);
  x += quad_shuffle_and_fill_down(x, y, 1) + quad_sum(x) + quad_product(x) + quad_min(x);
  x += quad_max(x) + quad_prefix_inclusive_sum(x) + quad_prefix_exclusive_sum(x);
  x += quad_prefix_inclusive_product(x) + quad_prefix_exclusive_product(x);
  simdgroup_float8x8 m = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
  simdgroup_float8x8 d = make_diagonal_simdgroup_matrix<float, 8, 8>(1.0f);
  simdgroup_load(m, out, 8);
  simdgroup_multiply(d, m, m);
  simdgroup_multiply_accumulate(d, m, m, d);
  simdgroup_store(d, out, 8);
  atomic_store_explicit(a, 1, memory_order_relaxed);
  n += atomic_load_explicit(a, memory_order_relaxed);
  n += atomic_exchange_explicit(a, 1, memory_order_relaxed);
  atomic_compare_exchange_weak_explicit(a, &n, 1, memory_order_relaxed, memory_order_relaxed);
  n += atomic_fetch_add_explicit(a, 1, memory_order_relaxed);
  n += atomic_fetch_sub_explicit(a, 1, memory_order_relaxed);
  n += atomic_fetch_and_explicit(a, 1, memory_order_relaxed);
  n += atomic_fetch_or_explicit(a, 1, memory_order_relaxed);
  n += atomic_fetch_xor_explicit(a, 1, memory_order_relaxed);
  n += atomic_fetch_min_explicit(a, 1, memory_order_relaxed);
  n += atomic_fetch_max_explicit(a, 1, memory_order_relaxed);
  atomic_min_explicit(b, 1ul, memory_order_relaxed);
  atomic_max_explicit(b, 1ul, memory_order_relaxed);
  Own own{1};
  out[i] = apply([](float t) { return t; }, x) + float(n) + float(u) + c.x + v.x + own.max3(1);
}
)";

std::string expand(std::string text) {
  if (const std::size_t at = text.find('$'); at != std::string::npos) text.replace(at, 1, kHead);
  return kHeader + text + "\n";
}

void check(const Rule& rule) {
  CompileOptions options;
  options.language_version = rule.version;
  bool found = false;
  for (const Diagnostic& d : lint(expand(rule.bug), options)) {
    found |= d.text.find(rule.complaint) != std::string::npos && d.line == 3;
  }
  expect(found, std::string("not found: ") + rule.complaint + " in " + rule.bug, __FILE__,
         __LINE__);
  if (!found) {
    for (const auto& d : lint(expand(rule.bug), options)) {
      std::fprintf(stderr, "  instead: %d: %s\n", d.line, d.text.c_str());
    }
  }
  for (const Diagnostic& d : lint(expand(rule.fixed), options)) {
    expect(false, std::string(rule.fixed) + ": " + d.text, __FILE__, __LINE__);
  }
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  try {
    for (const Rule& rule : kRules) check(rule);
    for (const Rule& rule : kVersions) check(rule);
    for (const Rule& rule : kNotMsl) check(rule);
    CompileOptions newest;
    newest.language_version = "4.0";
    for (const Diagnostic& d : lint(expand(kAll), newest)) {
      expect(false, "a function of the language: " + std::to_string(d.line) + ": " + d.text,
             __FILE__, __LINE__);
    }
    CompileOptions older;
    older.language_version = "2.0";
    std::set<std::string> newer;
    for (const Diagnostic& d : lint(expand(kAll), older)) {
      const std::size_t quote = d.text.find('\'', 1);
      if (d.text[0] == '\'') newer.insert(d.text.substr(1, quote - 1));
    }
    EXPECT(newer.size() >= 60 && newer.count("simd_sum") == 1 && newer.count("acos") == 0);
    EXPECT(newer.count("reverse_bits") == 1 && newer.count("quad_shuffle") == 0);
    std::printf("%zu rules, %zu names newer than 2.0\n",
                std::size(kRules) + std::size(kVersions) + std::size(kNotMsl), newer.size());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return report();
}
