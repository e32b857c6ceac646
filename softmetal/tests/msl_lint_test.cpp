#include "../msl/lint.hpp"
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
    std::printf("%zu rules\n", std::size(kRules));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return report();
}
