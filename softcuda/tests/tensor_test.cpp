// Boxes of tensors to shared memory and back: what lies where, what lies outside, who gets it.
#include "support.hpp"

namespace {

using test::Buffer;
using test::Kernel;
using test::uint16_t;
using test::uint32_t;
using test::uint64_t;

struct alignas(64) Map {
  uint64_t words[16];
};

struct Sizes {
  uint64_t columns, rows, heads;
};

constexpr int swizzle_128 = 3;

/// Numbers of 16 bits, rows of 64 columns in memory; boxes of 64 by `rows`.
Map encode(uint16_t* data, const Sizes& sizes, uint32_t rows, int swizzle, int* result = nullptr) {
  Map map;
  const uint64_t dims[] = {sizes.columns, sizes.rows, sizes.heads, 1, 1};
  const uint64_t head = 128 * sizes.rows;
  const uint64_t strides[] = {128, head, head * sizes.heads, head * sizes.heads};
  const uint32_t box[] = {64, rows, 1, 1, 1}, ones[] = {1, 1, 1, 1, 1};
  const int done =
      cuTensorMapEncodeTiled(&map, 9, 5, data, dims, strides, box, ones, 0, swizzle, 3, 0);
  if (result != nullptr) *result = done;
  return map;
}

constexpr const char* load_text = R"(
struct alignas(64) Map { u64 words[16]; };
inline void load(u32 to, const Map& map, int c, int r, int h, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4, %5, %6}], [%7];" :: "r"(to), "l"(&map), "r"(c), "r"(r), "r"(h),
      "r"(0), "r"(0), "r"(barrier) : "memory");
}
extern "C" __global__ void test(const __grid_constant__ Map map, u16* y, int c, int r, int h) {
  extern __shared__ __align__(1024) u16 memory[];
  const u32 at = address_of(memory), barrier = at + 16 * 128;
  init(barrier, 1);
  expect(barrier, 16 * 128);
  load(at, map, c, r, h, barrier);
  wait(barrier, 0);
  for (int i = 0; i < 16 * 64; ++i) y[i] = memory[i];
})";

/// The box at (column, row, head), as it has to lie in shared memory.
std::vector<uint16_t> expected(const std::vector<uint16_t>& x, const Sizes& sizes, int column,
                               int row, int head, bool swizzled) {
  std::vector<uint16_t> y(16 * 64);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 64; ++c) {
      const int from_c = column + c, from_r = row + r;
      const bool inside = from_c >= 0 && from_c < static_cast<int>(sizes.columns) && from_r >= 0 &&
                          from_r < static_cast<int>(sizes.rows) && head >= 0 &&
                          head < static_cast<int>(sizes.heads);
      const int place = r * 64 + ((c / 8 ^ (swizzled ? r % 8 : 0)) * 8 + c % 8);
      const int from = (head * static_cast<int>(sizes.rows) + from_r) * 64 + from_c;
      y[static_cast<unsigned>(place)] = inside ? x[static_cast<unsigned>(from)] : uint16_t{0};
    }
  }
  return y;
}

TEST(boxes_are_swizzled_and_filled_with_zeros) {
  const Sizes sizes{40, 20, 2};
  std::vector<uint16_t> x(64 * 20 * 2);
  for (unsigned i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i + 1);
  const Buffer<uint16_t> from(x), y(16 * 64);
  const Kernel kernel(load_text);
  const int places[][3] = {{0, 0, 0}, {0, 8, 1}, {8, -3, 0}, {-5, 0, 1}, {0, 0, 2}, {0, 100, 0}};
  for (const int swizzle : {0, swizzle_128}) {
    const Map map = encode(from.data(), sizes, 16, swizzle);
    for (const auto& [c, r, h] : places) {
      REQUIRE(kernel.run({1, 1, 4096}, map, y.data(), c, r, h) == 0);
      REQUIRE(y.read() == expected(x, sizes, c, r, h, swizzle != 0));
    }
  }
}

TEST(boxes_are_stored_inside_of_the_tensor_only) {
  const Kernel kernel(R"(
struct alignas(64) Map { u64 words[16]; };
extern "C" __global__ void test(const __grid_constant__ Map map, int r) {
  extern __shared__ __align__(1024) u16 memory[];
  for (int i = 0; i < 16 * 64; ++i) {
    memory[i / 64 * 64 + ((i / 8 % 8 ^ i / 64 % 8) * 8 + i % 8)] = i;
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile(
      "cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4, %5}], [%6];"
      :: "l"(&map), "r"(0), "r"(r), "r"(0), "r"(0), "r"(0), "r"(address_of(memory)) : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
  asm volatile("cp.async.bulk.wait_group.read %0;" :: "n"(0) : "memory");
  asm volatile("cp.async.bulk.wait_group %0;" :: "n"(0) : "memory");
})");
  const Buffer<uint16_t> to(std::vector<uint16_t>(64 * 20, 7));
  const Map map = encode(to.data(), {40, 20, 1}, 16, swizzle_128);
  REQUIRE(kernel.run({1, 1, 4096}, map, 10) == 0);
  const auto y = to.read();
  for (unsigned r = 0; r < 20; ++r) {
    for (unsigned c = 0; c < 64; ++c) {
      const bool inside = r >= 10 && c < 40;
      REQUIRE(y[r * 64 + c] == (inside ? (r - 10) * 64 + c : 7));
    }
  }
}

TEST(a_multicast_goes_to_the_blocks_of_its_mask) {
  const Kernel kernel(R"(
struct alignas(64) Map { u64 words[16]; };
extern "C" __global__ void test(const __grid_constant__ Map map, u16* y) {
  extern __shared__ __align__(1024) u16 memory[];
  const u32 at = address_of(memory), barrier = at + 16 * 128;
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  init(barrier, 1);
  expect(barrier, rank < 2 ? 16 * 128 : 0);
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
  if (rank < 2) {  // each loads eight rows for both
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3, %4, %5, %6}], [%7], %8;" :: "r"(at + rank * 1024),
        "l"(&map), "r"(0), "r"(8 * rank), "r"(0), "r"(0), "r"(0), "r"(barrier), "h"((u16)3)
        : "memory");
  }
  wait(barrier, 0);
  for (int i = 0; i < 16 * 64; ++i) y[rank * 1024 + i] = memory[i];
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
})");
  std::vector<uint16_t> x(64 * 16);
  for (unsigned i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i + 1);
  const Buffer<uint16_t> from(x), y(4 * 1024);
  const Sizes sizes{64, 16, 1};
  const Map map = encode(from.data(), sizes, 8, swizzle_128);
  REQUIRE(kernel.run({4, 1, 4096, 4}, map, y.data()) == 0);
  const auto all = y.read();
  const auto box = expected(x, sizes, 0, 0, 0, true);
  for (unsigned i = 0; i < 4096; ++i) REQUIRE(all[i] == (i < 2048 ? box[i % 1024] : 0xFFFF));
}

TEST(maps_that_the_copy_engine_cannot_address) {
  const Buffer<uint16_t> x(64 * 16);
  int result = 0;
  encode(x.data() + 1, {64, 16, 1}, 16, swizzle_128, &result);
  REQUIRE(result == 1);
  encode(x.data(), {64, 16, 1}, 257, swizzle_128, &result);
  REQUIRE(result == 1);
  encode(x.data(), {64, 16, 1}, 16, 2, &result);  // rows of 128 bytes, swizzled by 64
  REQUIRE(result == 1);
  encode(x.data(), {64, 0, 1}, 16, swizzle_128, &result);
  REQUIRE(result == 1);
}

TEST(maps_of_foreign_memory_and_no_maps_are_found) {
  constexpr int illegal_address = 700;
  const Kernel kernel(load_text);
  const Buffer<uint16_t> x(64 * 16), y(16 * 64);
  const Map larger = encode(x.data(), {64, 17, 1}, 16, swizzle_128);
  REQUIRE(kernel.run({1, 1, 4096}, larger, y.data(), 0, 0, 0) == 0);
  REQUIRE(kernel.run({1, 1, 4096}, larger, y.data(), 0, 8, 0) == illegal_address);
  REQUIRE(kernel.run({1, 1, 4096}, Map{}, y.data(), 0, 0, 0) == illegal_address);
  REQUIRE(kernel.run({1, 1, 1024}, larger, y.data(), 0, 0, 0) == illegal_address);
}

}  // namespace
