#include <optional>

#include "msl_harness.hpp"

// Seeded bugs: each must be found, at its line; the repaired twin of each must be clean.

namespace softmetal::test {
namespace {

/// A kernel `k` over buffers in (float, 256, read), out (float, 256), flags (uint, 64). The line
/// with the text BUG is where the finding belongs; FIXED is written in the repaired twin.
struct Seed {
  const char* name;
  FindingKind kind;
  const char* bug;
  const char* fixed;
  const char* body;  // with @ where bug or fixed goes
  Size3 threads{64, 1, 1};
  Size3 groups{1, 1, 1};
};

using K = FindingKind;

const Seed kSeeds[] = {
    {"read beyond the end", K::out_of_bounds, "in[i + 200]", "in[i]", "out[i] = @;"},
    {"read before the start", K::out_of_bounds, "in[int(i) - 1]", "in[i]", "out[i] = @;"},
    {"write beyond the end", K::out_of_bounds, "out[i * 8]", "out[i]", "@ = 1.0f;"},
    {"vector read at the end", K::out_of_bounds, "63 + i", "i % 64",
     "device const float4* v = (device const float4*)in; out[i] = v[@].x;"},
    {"struct copy beyond the end", K::out_of_bounds, "i + 60", "i % 16",
     "struct S { float x[4]; }; S s = ((device const S*)in)[@]; out[i] = s.x[i % 4];"},
    {"64-bit index overflow", K::out_of_bounds, "i - 1", "i", "out[i] = in[@];"},
    {"misaligned vector", K::misaligned, "in + 1", "in",
     "device const float4* v = (device const float4*)(@); out[i] = v[i % 32].x;"},
    {"static threadgroup index", K::out_of_bounds, "t[i + 1]", "t[i]",
     "threadgroup float t[64]; @ = 1.0f; out[i] = 0;"},
    {"dynamic threadgroup index", K::out_of_bounds, "dyn[i + 8]", "dyn[i]",
     "@ = 1.0f; out[i] = 0;"},
    {"uninitialised threadgroup read", K::uninitialised_read, "t[i ^ 1]", "1.0f",
     "threadgroup float t[64]; out[i] = @;"},
    {"half written tile", K::uninitialised_read, "32", "64",
     "threadgroup float t[64]; if (i < @) t[i] = 1; "
     "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
     "out[i] = t[63 - i];"},
    {"missing barrier", K::threadgroup_race, "", "threadgroup_barrier(mem_flags::mem_threadgroup);",
     "threadgroup float t[64]; t[i] = in[i]; @ out[i] = t[63 - i];"},
    {"barrier without mem_threadgroup", K::threadgroup_race, "mem_none", "mem_threadgroup",
     "threadgroup float t[64]; t[i] = in[i]; threadgroup_barrier(mem_flags::@);\n"
     "out[i] = t[63 - i];"},
    {"missing barrier before reuse", K::threadgroup_race, "",
     "threadgroup_barrier(mem_flags::mem_threadgroup);",
     "threadgroup float t[64]; t[i] = in[i]; threadgroup_barrier(mem_flags::mem_threadgroup);\n"
     "float x = t[63 - i]; @\nt[i] = x; threadgroup_barrier(mem_flags::mem_threadgroup); out[i] = "
     "t[i];"},
    {"simdgroup_barrier between simdgroups", K::threadgroup_race, "simdgroup_barrier",
     "threadgroup_barrier",
     "threadgroup float t[64]; t[i] = in[i]; @(mem_flags::mem_threadgroup);\nout[i] = t[63 - i];"},
    {"race in a dynamic tile", K::threadgroup_race, "",
     "threadgroup_barrier(mem_flags::mem_threadgroup);", "dyn[i] = in[i]; @ out[i] = dyn[63 - i];"},
    {"everybody writes one word", K::threadgroup_race, "t[0] = float(i)", "if (i == 0) t[0] = 1.0f",
     "threadgroup float t[1]; @; threadgroup_barrier(mem_flags::mem_threadgroup); out[i] = t[0];"},
    {"plain counter in device memory", K::device_race, "flags[0] += 1u",
     "atomic_fetch_add_explicit((device atomic_uint*)flags, 1u, memory_order_relaxed)",
     "@; out[i] = 0;"},
    {"two threadgroups write one word",
     K::device_race,
     "out[i]",
     "out[g * 64 + i]",
     "@ = float(g);",
     {64, 1, 1},
     {4, 1, 1}},
    {"read of another thread's output", K::device_race, "",
     "threadgroup_barrier(mem_flags::mem_device);", "out[i] = 1.0f; @\nout[i + 64] = out[63 - i];"},
    {"barrier in a branch", K::divergent_barrier, "if (i < 32) ", "",
     "@threadgroup_barrier(mem_flags::mem_threadgroup); out[i] = 0;\n"
     "threadgroup_barrier(mem_flags::mem_none);"},
    {"return before a barrier", K::divergent_barrier, "if (i == 3) return;", "",
     "@ threadgroup_barrier(mem_flags::mem_threadgroup); out[i] = 0;"},
    {"matrix product in a branch", K::divergent_collective, "if (i % 32 < 16) ", "",
     "simdgroup_float8x8 a(1.0f), b(1.0f), c; @simdgroup_multiply(c, a, b); out[i] = 0;"},
    {"matrix load after a return", K::divergent_collective, "if (i == 40) return;", "",
     "@ simdgroup_float8x8 a; simdgroup_load(a, in, 8); out[i] = a.thread_elements()[0];"},
    {"matrix load beyond the end", K::out_of_bounds, "40", "8",
     "simdgroup_float8x8 a; simdgroup_load(a, in, @); out[i] = a.thread_elements()[0];"},
    {"simdgroup_barrier in a branch", K::divergent_collective, "if (i % 32 == 0) ", "",
     "@simdgroup_barrier(mem_flags::mem_none); out[i] = 0;"},
    {"shuffle from an inactive thread", K::inactive_lane, "20", "3",
     "float x = 0; if (i % 32 < 16) x = simd_shuffle(float(i), @); out[i] = x;"},
    {"null buffer", K::wild_pointer, "none[i]", "0.0f", "out[i] = @;"},
    {"write through const_cast", K::write_to_constant, "((device float*)in)[i]", "out[i]",
     "@ = 1.0f;"},
    {"matrix store race", K::device_race, "out", "out + i / 32 * 64",
     "simdgroup_float8x8 a(1.0f); simdgroup_store(a, @, 8);"},
};

std::string text_of(const Seed& s, bool fixed) {
  std::string body = s.body;
  body.replace(body.find('@'), 1, fixed ? s.fixed : s.bug);
  return kHeader +
         "kernel void k(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],\n"
         " device uint* flags [[buffer(2)]], device float* none [[buffer(9)]],\n"
         " threadgroup float* dyn [[threadgroup(0)]],\n"
         " uint i [[thread_index_in_threadgroup]], uint g [[threadgroup_position_in_grid]]) {\n" +
         body + "\n}\n";
}

DispatchResult run(const Seed& s, bool fixed, std::uint64_t seed) {
  Program p(text_of(s, fixed), "k");
  auto in = ramp(256);
  std::vector<float> out(256);
  std::vector<unsigned> flags(64);
  p.options.schedule_seed = seed;
  p.buffer(0, in, "in").buffer(1, out, "out").buffer(2, flags).threadgroup(0, 256);
  DispatchResult result = p.groups(s.groups, s.threads);
  // Buffer 9 is left unbound on purpose, which the dispatch reports.
  std::erase_if(result.findings, [](auto& f) { return f.kind == K::unbound_buffer; });
  return result;
}

void check(const Seed& s, std::uint64_t seed) {
  const DispatchResult bad = run(s, false, seed);
  bool found = false;
  for (const Finding& f : bad.findings) {
    found |= f.kind == s.kind && f.line >= 7 && f.line <= 9 && f.kernel == "k";
  }
  expect(found, std::string(s.name) + ": not found", __FILE__, __LINE__);
  if (!found) {
    for (const auto& f : bad.findings) std::fprintf(stderr, "  instead: %s\n", f.text.c_str());
  }
  for (const Finding& f : run(s, true, seed).findings) {
    expect(false, std::string(s.name) + ", repaired: " + f.text, __FILE__, __LINE__);
  }
}

void names_everything() {
  const DispatchResult r = run(kSeeds[2], false, 0);
  EXPECT(r.findings.size() == 1);
  const Finding& f = r.findings.at(0);
  EXPECT(f.buffer_index == 1 && f.buffer_label == "out" && f.offset == 32 * 32);
  EXPECT(f.thread == (Size3{32, 0, 0}) && f.line == 7 && f.count == 32);
}

void budget() {
  Program p(kHeader + R"(
kernel void spin(device atomic_uint* a [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  while (atomic_load_explicit(a, memory_order_relaxed) == 0u) {}
})",
            "spin");
  std::vector<unsigned> a(1);
  p.options.step_budget = 10000;
  const auto r = p.buffer(0, a).groups({1}, {64});
  EXPECT(r.findings.size() == 1 && r.findings[0].kind == K::timeout);
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  try {
    for (const Seed& s : kSeeds) check(s, 0);
    for (const Seed& s : kSeeds) check(s, 7);
    names_everything();
    budget();
    std::printf("%zu seeded bugs\n", std::size(kSeeds));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return report();
}
