// Tensor cores: fragments and products, against sums of integers, which are exact.
#include "support.hpp"

namespace {

using test::Buffer;
using test::Kernel;
using test::number;
using test::uint16_t;
using test::uint32_t;

TEST(matrices_are_loaded_and_stored) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  extern __shared__ __align__(16) u16 memory[];
  const u32 lane = threadIdx.x;
  for (u32 i = lane; i < 256; i += 32) memory[i] = i;  // matrix i / 64, row i / 8 % 8
  __syncwarp();
  const u32 row = address_of(memory) + 16 * lane;
  u32 a[4], b[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(row) : "memory");
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(row) : "memory");
  for (int m = 0; m < 4; ++m) y[8 * lane + m] = a[m], y[8 * lane + 4 + m] = b[m];
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" :: "r"(row + 512),
               "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]) : "memory");
  __syncwarp();
  for (u32 i = lane; i < 256; i += 32) y[256 + i] = memory[256 + i];
})");
  const Buffer<uint32_t> buffer(512);
  REQUIRE(kernel.run({1, 32, 1024}, buffer.data()) == 0);
  const auto y = buffer.read();
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned m = 0; m < 4; ++m) {
      const unsigned first = 64 * m + lane / 4 * 8 + lane % 4 * 2;
      REQUIRE(y[8 * lane + m] == ((first + 1) << 16 | first));
      const unsigned across = 64 * m + lane % 4 * 16 + lane / 4;
      REQUIRE(y[8 * lane + 4 + m] == ((across + 8) << 16 | across));
    }
  }
  for (unsigned i = 0; i < 256; ++i) REQUIRE(y[256 + i] == i);
}

uint16_t bits(int x, bool is_bf16) {
  return is_bf16 ? test::bf16(static_cast<float>(x)) : test::f16(x);
}

TEST(products_of_a_warp) {
  for (const bool is_bf16 : {false, true}) {
    const std::string type = is_bf16 ? "bf16" : "f16";
    const Kernel kernel(R"(
extern "C" __global__ void test(const u16* a, const u16* b, float* d) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4 * 2;
  auto pair = [](u16 low, u16 high) { return (u32)high << 16 | low; };
  u32 x[4], y[2];
  for (int i = 0; i < 4; ++i) {
    const u16* p = a + (g + i % 2 * 8) * 16 + t + i / 2 * 8;
    x[i] = pair(p[0], p[1]);
  }
  for (int i = 0; i < 2; ++i) y[i] = pair(b[(t + 8 * i) * 8 + g], b[(t + 8 * i + 1) * 8 + g]);
  float s[4];
  for (int i = 0; i < 4; ++i) s[i] = (g + i / 2 * 8) * 100 + t + i % 2;
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.)" +
                        type + "." + type + R"(.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t + i % 2] = s[i];
})");
    std::vector<uint16_t> a(256), b(128);
    for (unsigned i = 0; i < 256; ++i) a[i] = bits(number(i), is_bf16);
    for (unsigned i = 0; i < 128; ++i) b[i] = bits(number(i + 999), is_bf16);
    const Buffer<uint16_t> from_a(a), from_b(b);
    const Buffer<float> d(128);
    REQUIRE(kernel.run({1, 32}, from_a.data(), from_b.data(), d.data()) == 0);
    const auto result = d.read();
    for (unsigned r = 0; r < 16; ++r) {
      for (unsigned c = 0; c < 8; ++c) {
        int sum = static_cast<int>(r * 100 + c);
        for (unsigned k = 0; k < 16; ++k) sum += number(r * 16 + k) * number(k * 8 + c + 999);
        REQUIRE(result[r * 8 + c] == static_cast<float>(sum));
      }
    }
  }
}

struct Form {
  bool is_bf16, registers, transpose_a, transpose_b;
  int accumulate;
};

constexpr int columns = 96;  // of B: one panel and a half

/// wgmma.m64n96k16 as a kernel: d = a b (+ 7), A from registers or from shared memory.
std::string wgmma_text(const Form& form) {
  const std::string type = form.is_bf16 ? "bf16" : "f16";
  std::string sums, places;
  for (int i = 0; i < columns / 2; ++i) {
    const std::string comma = i == 0 ? "" : ", ";
    sums += comma + "%" + std::to_string(i);
    places += comma + "\"+f\"(s[" + std::to_string(i) + "])";
  }
  const auto at = [](int i) { return "%" + std::to_string(columns / 2 + i); };
  const std::string a =
      form.registers ? "{" + at(0) + ", " + at(1) + ", " + at(2) + ", " + at(3) + "}, " + at(4)
                     : at(0) + ", " + at(1);
  const int next = form.registers ? 5 : 2;
  const std::string operands =
      form.registers
          ? "\"r\"(x[0]), \"r\"(x[1]), \"r\"(x[2]), \"r\"(x[3]), \"l\"(db), \"r\"(accumulate)"
          : "\"l\"(da), \"l\"(db), \"r\"(accumulate), \"n\"(" + std::to_string(form.transpose_a) +
                ")";
  const std::string transposed = form.registers ? at(next + 1) : at(next + 1) + ", " + at(next + 2);
  return R"(
inline u64 descriptor(u32 at, u32 panel) {
  return (u64)((at & 0x3FFFF) >> 4) | (u64)(panel >> 4) << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}
// Rows of 64 numbers in panels, 16-byte pieces swizzled by the row.
inline void put(u16* to, int rows, int row, int column, u16 x) {
  const int c = column % 64;
  to[(column / 64 * rows + row) * 64 + ((c / 8 ^ row % 8) * 8 + c % 8)] = x;
}
extern "C" __global__ void test(const u16* a, const u16* b, float* d, int accumulate) {
  extern __shared__ __align__(1024) u16 memory[];
  u16* const sa = memory;
  u16* const sb = memory + 64 * 64;
  const int t = threadIdx.x;
  for (int i = t; i < 64 * 16; i += 128) {
    if ()" +
         std::to_string(form.transpose_a) + R"() put(sa, 16, i % 16, i / 16, a[i]);
    else put(sa, 64, i / 16, i % 16, a[i]);
  }
  for (int i = t; i < 16 * 96; i += 128) {  // b[k][n]
    if ()" +
         std::to_string(form.transpose_b) + R"() put(sb, 16, i / 96, i % 96, b[i]);
    else put(sb, 96, i % 96, i / 96, b[i]);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const u64 da = descriptor(address_of(sa), 0), db = descriptor(address_of(sb), 16 * 128);
  const int row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
  u32 x[4];
  for (int i = 0; i < 4; ++i) {
    const u16* p = a + (row + i % 2 * 8) * 16 + column + i / 2 * 8;
    x[i] = (u32)p[1] << 16 | p[0];
  }
  float s[48];
  for (int i = 0; i < 48; ++i) s[i] = 7;
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, )" +
         at(next) + R"(, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.)" +
         type + "." + type + " {" + sums + "}, " + a + ", p, 1, 1, " + transposed +
         ";\\n}\" : " + places + " : " + operands + ", \"n\"(" + std::to_string(form.transpose_b) +
         R"());
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(0) : "memory");
  for (int i = 0; i < 48; ++i) {
    d[(row + i / 2 % 2 * 8) * 96 + i / 4 * 8 + column + i % 2] = s[i];
  }
})";
}

TEST(products_of_a_warpgroup) {
  std::vector<Form> forms;
  for (const bool is_bf16 : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      forms.push_back({is_bf16, true, false, transpose_b, 1});
      for (const bool transpose_a : {false, true}) {
        forms.push_back({is_bf16, false, transpose_a, transpose_b, transpose_a ? 0 : 1});
      }
    }
  }
  for (const Form& form : forms) {
    const Kernel kernel(wgmma_text(form));
    std::vector<uint16_t> a(64 * 16), b(16 * columns);
    for (unsigned i = 0; i < a.size(); ++i) a[i] = bits(number(i), form.is_bf16);
    for (unsigned i = 0; i < b.size(); ++i) b[i] = bits(number(i + 5000), form.is_bf16);
    const Buffer<uint16_t> from_a(a), from_b(b);
    const Buffer<float> d(64 * columns);
    REQUIRE(kernel.run({1, 128, 32 << 10}, from_a.data(), from_b.data(), d.data(),
                       form.accumulate) == 0);
    const auto result = d.read();
    bool is_right = true;
    for (unsigned r = 0; r < 64; ++r) {
      for (unsigned c = 0; c < columns; ++c) {
        int sum = form.accumulate != 0 ? 7 : 0;
        for (unsigned k = 0; k < 16; ++k)
          sum += number(r * 16 + k) * number(k * columns + c + 5000);
        is_right = is_right && result[r * columns + c] == static_cast<float>(sum);
      }
    }
    REQUIRE(is_right);
  }
}

TEST(products_that_nobody_waits_for_are_found) {
  Form form{true, false, false, false, 1};
  std::string text = wgmma_text(form);
  const std::string wait = "wgmma.wait_group.sync.aligned %0;\" :: \"n\"(0)";
  text.replace(text.find(wait), wait.size(), "wgmma.fence.sync.aligned;\" ::");
  const Buffer<uint16_t> a(std::vector<uint16_t>(64 * 16)), b(std::vector<uint16_t>(16 * columns));
  const Buffer<float> d(64 * columns);
  const Kernel kernel(text);
  const int result = kernel.run({1, 128, 32 << 10}, a.data(), b.data(), d.data(), 1);
  const bool lazy = std::getenv("SOFTCUDA_LAZY") != nullptr;
  REQUIRE(result == (lazy ? 700 : 0));
}

TEST(sums_of_a_product_under_way_are_poison) {
  if (std::getenv("SOFTCUDA_LAZY") == nullptr) return;
  std::string text = wgmma_text({true, false, false, false, 1});
  const std::string results = "for (int i = 0; i < 48; ++i) {\n    d[(row";
  text.replace(text.find(results), results.size(), "for (int i = 0; i < 0; ++i) {\n    d[(row");
  const std::string commit = "asm volatile(\"wgmma.commit_group";
  text.insert(text.find(commit), "d[0] = s[3];\n");
  const Buffer<uint16_t> a(std::vector<uint16_t>(64 * 16)), b(std::vector<uint16_t>(16 * columns));
  const Buffer<float> d(std::vector<float>(64 * columns, 1.0F));
  const Kernel kernel(text);
  REQUIRE(kernel.run({1, 128, 32 << 10}, a.data(), b.data(), d.data(), 1) == 0);
  const float seen = d.read()[0];
  REQUIRE(seen != seen);
}

}  // namespace
