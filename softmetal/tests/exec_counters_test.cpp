// Counters are exact: for each kernel the numbers that follow from its text.
#include "msl_harness.hpp"

namespace softmetal::test {
namespace {

constexpr std::uint64_t kThreads = 128;  // two threadgroups of two simdgroups

struct Sample {
  const char* name;
  const char* body;
  std::uint64_t device_read, device_written;  // bytes a thread
  std::uint64_t floats, integers, special;    // a thread
};

const Sample kSamples[] = {
    {"copy", "out[i] = a[i];", 4, 4, 0, 0, 0},
    {"fused", "out[i] = fma(a[i], b[i], 3.0f);", 8, 4, 2, 0, 0},
    {"separate", "out[i] = (a[i] - b[i]) * a[i + 64];", 12, 4, 2, 1, 0},
    {"largest", "out[i] = max(a[i], min(b[i], 0.5f));", 8, 4, 2, 0, 0},
    {"free", "out[i] = -abs(a[i]);", 4, 4, 0, 0, 0},
    {"rounding", "out[i] = floor(a[i]) + rint(b[i]);", 8, 4, 3, 0, 0},
    {"division", "out[i] = a[i] / b[i];", 8, 4, 0, 0, 1},
    {"exponentials", "out[i] = exp2(a[i]) + log(b[i]);", 8, 4, 1, 0, 2},
    {"fast", "out[i] = fast::exp(a[i]);", 4, 4, 0, 0, 1},
    {"reciprocal root", "out[i] = rsqrt(a[i]);", 4, 4, 0, 0, 2},
    {"vectors", "((device float4*)out)[i] = ((device float4*)a)[i] * ((device float4*)b)[i];", 32,
     16, 4, 0, 0},
    {"halves", "((device half4*)out)[i] = ((device half4*)a)[i] + ((device half4*)b)[i];", 16, 8, 4,
     0, 0},
    {"vector functions", "((device float2*)out)[i] = exp(((device float2*)a)[i]);", 8, 8, 0, 0, 2},
    {"integers", "const int x = ((device int*)a)[i]; ((device int*)out)[i] = (x * 77) ^ (x >> 3);",
     4, 4, 0, 3, 0},
    {"integer division", "((device uint*)out)[i] = ((device uint*)a)[i] / ((device uint*)b)[i];", 8,
     4, 0, 1, 0},
    {"bits", "((device uint*)out)[i] = popcount(((device uint*)a)[i]);", 4, 4, 0, 1, 0},
    {"conversion", "out[i] = float(((device int*)a)[i]);", 4, 4, 1, 0, 0},
    {"struct", "((device Four*)out)[i] = ((device Four*)a)[i];", 16, 16, 0, 0, 0},
    {"member function", "out[i] = ((device Four*)a)[i].sum();", 16, 4, 3, 0, 0},
};

std::string text_of(const std::string& body) {
  return kHeader +
         "struct Four { float x, y, z, w; float sum() const device { return x + y + z + w; } };\n"
         "kernel void k(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],\n"
         "              device float* out [[buffer(2)]], device atomic_uint* flags [[buffer(3)]],\n"
         "              constant float* table [[buffer(4)]], constant int& n [[buffer(5)]],\n"
         "              threadgroup float* dynamic [[threadgroup(0)]],\n"
         "              uint i [[thread_position_in_grid]],\n"
         "              uint t [[thread_index_in_threadgroup]]) {\n  " +
         body + "\n}\n";
}

Counters count(const std::string& body, bool checked = true) {
  Program p(text_of(body), "k", {}, checked);
  std::vector<float> a(4 * kThreads, 2.0f), b = a, out = a, table(kThreads, 1.0f);
  std::vector<unsigned> flags(4);
  p.buffer(0, a).buffer(1, b).buffer(2, out).buffer(3, flags).buffer(4, table).bytes(5, 10);
  const DispatchResult r = p.threadgroup(0, 1024).groups({2}, {64});
  EXPECT_CLEAN(r);
  EXPECT(r.counters.threads == kThreads && r.counters.threadgroups == 2);
  return r.counters;
}

void equal(std::uint64_t got, std::uint64_t wanted, const std::string& what, int line) {
  expect(got == wanted,
         what + ": counted " + std::to_string(got) + ", not " + std::to_string(wanted), __FILE__,
         line);
}
#define EQUAL(got, wanted) equal((got), (wanted), #got, __LINE__)

void arithmetic_and_device_memory() {
  for (const Sample& s : kSamples) {
    const Counters c = count(s.body);
    const std::string name = s.name;
    equal(c.device_bytes_read, s.device_read * kThreads, name + ", bytes read", __LINE__);
    equal(c.device_bytes_written, s.device_written * kThreads, name + ", bytes written", __LINE__);
    equal(c.float_operations, s.floats * kThreads, name + ", floating point", __LINE__);
    equal(c.integer_operations, s.integers * kThreads, name + ", integer", __LINE__);
    equal(c.special_operations, s.special * kThreads, name + ", special", __LINE__);
    equal(c.threadgroup_bytes_read + c.threadgroup_bytes_written + c.constant_bytes_read, 0,
          name + ", other memory", __LINE__);
  }
}

void other_memory() {
  const Counters c = count(
      "threadgroup float fixed[64];\n fixed[t] = table[t];\n dynamic[t] = 1;\n"
      " threadgroup_barrier(mem_flags::mem_threadgroup);\n out[i] = fixed[t ^ 1] + dynamic[t ^ "
      "1];");
  EQUAL(c.constant_bytes_read, 4 * kThreads);
  EQUAL(c.threadgroup_bytes_written, 8 * kThreads);
  EQUAL(c.threadgroup_bytes_read, 8 * kThreads);
  EQUAL(c.device_bytes_read, 0);
  EQUAL(c.device_bytes_written, 4 * kThreads);
  EQUAL(c.barriers, 2);
}

void atomics() {
  const Counters c = count(
      "atomic_fetch_add_explicit(flags, 1u, memory_order_relaxed);\n"
      " atomic_store_explicit(flags + 1, 1u, memory_order_relaxed);");
  EQUAL(c.atomics, 2 * kThreads);
  EQUAL(c.device_bytes_written, 8 * kThreads);
  EQUAL(c.device_bytes_read, 0);
}

// Loads and stores of matrices count as memory, their products as matrix operations and not as
// arithmetic. What needs no checks is counted without them too.
void matrices() {
  const char* const body =
      "simdgroup_float8x8 x, y, sum(0.0f);\n simdgroup_load(x, a);\n simdgroup_load(y, b);\n"
      " for (int k = 0; k < n; ++k) simdgroup_multiply_accumulate(sum, x, y, sum);\n"
      " simdgroup_barrier(mem_flags::mem_device);\n"
      " if (t < 32) simdgroup_store(sum, out + i / 64 * 64);";
  for (const bool checked : {true, false}) {
    const Counters c = count(body, checked);
    EQUAL(c.matrix_operations, 4 * 10);  // four simdgroups
    EQUAL(c.simd_operations, 0);
    EQUAL(c.simdgroup_barriers, 4);
    EQUAL(c.device_bytes_read, checked ? 4 * 2 * 256 : 0);
    EQUAL(c.device_bytes_written, checked ? 2 * 256 : 0);
    EQUAL(c.float_operations, 0);
  }
}

void simdgroup_operations() {
  const char* const body =
      "float x = float(t);\n for (int k = 0; k < n; ++k) x = simd_shuffle_xor(x, 1);\n"
      " x = simd_sum(x);\n out[i] = simd_broadcast(x, 3);\n"
      " threadgroup_barrier(mem_flags::mem_none);";
  for (const bool checked : {true, false}) {
    const Counters c = count(body, checked);
    EQUAL(c.simd_operations, 4 * 12);
    EQUAL(c.barriers, 2);
    EQUAL(c.matrix_operations, 0);
  }
}

void branches_count_what_ran() {
  const Counters c = count("if (t < 16) out[i] = a[i] * b[i];");
  EQUAL(c.float_operations, 32);
  EQUAL(c.device_bytes_read, 8 * 32);
  EQUAL(c.integer_operations, kThreads);  // the comparison
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  arithmetic_and_device_memory();
  other_memory();
  atomics();
  matrices();
  simdgroup_operations();
  branches_count_what_ran();
  return report();
}
