// Warps' operations, mbarriers, named barriers, clusters: what they wait for, and what they find.
#include "support.hpp"

namespace {

using test::Buffer;
using test::Kernel;
using test::uint32_t;

constexpr int illegal_address = 700;

TEST(shuffles_and_votes) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  const u32 i = threadIdx.x;
  y[i] = __shfl_xor_sync(~0u, i * 3, 5);
  y[32 + i] = __shfl_sync(~0u, i + 100, 7);
  y[64 + i] = __ballot_sync(~0u, i % 3 == 0);
  y[96 + i] = __any_sync(~0u, i == 9) + 2 * __all_sync(~0u, i < 31);
  y[128 + i] = __syncthreads_or(i == 3) + 2 * __syncthreads_or(0);
})");
  const Buffer<uint32_t> buffer(160);
  REQUIRE(kernel.run({1, 32}, buffer.data()) == 0);
  const auto y = buffer.read();
  for (unsigned i = 0; i < 32; ++i) {
    REQUIRE(y[i] == (i ^ 5) * 3 && y[32 + i] == 107 && y[64 + i] == 0x49249249u);
    REQUIRE(y[96 + i] == 1 && y[128 + i] == 1);
  }
}

TEST(lanes_at_different_operations_are_an_error) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  if (threadIdx.x < 16) __syncwarp(); else y[0] = __ballot_sync(~0u, 1);
})");
  const Buffer<uint32_t> y(1);
  REQUIRE(kernel.run({1, 32}, y.data()) == illegal_address);
}

TEST(lanes_that_have_ended_are_not_waited_for) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  if (threadIdx.x % 2 == 0) return;
  __syncwarp();
  __syncthreads();
  atomicAdd(y, 1u);
})");
  const Buffer<uint32_t> y(std::vector<uint32_t>{0});
  REQUIRE(kernel.run({1, 64}, y.data()) == 0);
  REQUIRE(y.read()[0] == 32);
}

TEST(an_mbarrier_counts_arrivals_and_has_phases) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  extern __shared__ __align__(16) u64 memory[];
  const u32 at = address_of(memory);
  if (threadIdx.x == 0) {
    init(at, 2);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    y[0] = is_over(at, 1);  // the phase before the first is over
    y[1] = is_over(at, 0);
    arrive(at);
    y[2] = is_over(at, 0);
    arrive(at);
    y[3] = is_over(at, 0) + 2 * is_over(at, 1);
    arrive(at);
    arrive(at);
    y[4] = is_over(at, 0) + 2 * is_over(at, 1);
  }
})");
  const Buffer<uint32_t> y(5);
  REQUIRE(kernel.run({1, 1, 64}, y.data()) == 0);
  REQUIRE(y.read() == (std::vector<uint32_t>{1, 0, 0, 1, 2}));
}

TEST(an_mbarrier_waits_for_bytes) {
  const Kernel kernel(R"(
extern "C" __global__ void test(const u32* x, u32* y) {
  extern __shared__ __align__(16) u32 memory[];
  const u32 at = address_of(memory);
  init(at, 1);
  expect(at, 32);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      :: "r"(at + 16), "l"(x), "r"(16), "r"(at) : "memory");
  y[0] = is_over(at, 0);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      :: "r"(at + 32), "l"(x + 4), "r"(16), "r"(at) : "memory");
  wait(at, 0);
  for (int i = 0; i < 8; ++i) y[1 + i] = memory[4 + i];
})");
  const Buffer<uint32_t> x(std::vector<uint32_t>{1, 2, 3, 4, 5, 6, 7, 8}), y(9);
  REQUIRE(kernel.run({1, 1, 64}, x.data(), y.data()) == 0);
  REQUIRE(y.read() == (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(misuse_of_mbarriers_is_found) {
  const Kernel kernel(R"(
extern "C" __global__ void test(int what) {
  extern __shared__ __align__(16) u64 memory[];
  const u32 at = address_of(memory);
  if (what == 0) arrive(at);  // not initialised
  if (what == 1) init(at, 0);
  if (what == 2) init(at, 1), expect(at, 16), arrive(at);  // more arrivals than expected
  if (what == 3) init(at + 4, 1);
  if (what == 4) init(at, 1), arrive(at);
})");
  for (int what = 0; what < 4; ++what) REQUIRE(kernel.run({1, 1, 64}, what) == illegal_address);
  REQUIRE(kernel.run({1, 1, 64}, 4) == 0);
}

TEST(a_wait_in_vain_ends_by_its_own_count) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  extern __shared__ __align__(16) u64 memory[];
  const u32 at = address_of(memory);
  if (threadIdx.x == 0) init(at, 1);
  __syncthreads();
  u32 polls = 0;
  while (!is_over(at, 0) && ++polls < 100000) {}
  y[threadIdx.x] = polls;
})");
  const Buffer<uint32_t> y(128);
  REQUIRE(kernel.run({1, 128, 64}, y.data()) == 0);
  REQUIRE(y.read() == std::vector<uint32_t>(128, 100000));
}

TEST(threads_that_all_wait_for_ever_end_the_launch) {
  const Kernel kernel(R"(
extern "C" __global__ void test() {
  asm volatile("bar.sync %0, %1;" :: "r"(3), "r"(64) : "memory");
})");
  REQUIRE(kernel.run({1, 32}) == illegal_address);  // there are no 64 threads
  const Kernel half(R"(
extern "C" __global__ void test() {
  if (threadIdx.x < 32) asm volatile("bar.sync %0, %1;" :: "r"(3), "r"(64) : "memory");
})");
  REQUIRE(half.run({1, 64}) == illegal_address);
}

TEST(named_barriers_let_some_arrive_and_others_wait) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  extern __shared__ u32 memory[];
  if (threadIdx.x >= 32) {
    if (threadIdx.x == 40) memory[0] = 5;
    asm volatile("bar.arrive %0, %1;" :: "r"(1), "r"(64) : "memory");
    return;
  }
  asm volatile("bar.sync 1, %0;" :: "n"(64) : "memory");
  y[threadIdx.x] = memory[0];
})");
  const Buffer<uint32_t> y(32);
  REQUIRE(kernel.run({1, 64, 16}, y.data()) == 0);
  REQUIRE(y.read() == std::vector<uint32_t>(32, 5));
}

TEST(blocks_of_a_cluster_reach_each_others_barriers) {
  const Kernel kernel(R"(
extern "C" __global__ void test(u32* y) {
  extern __shared__ __align__(16) u64 memory[];
  const u32 at = address_of(memory);
  u32 rank, remote;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  if (threadIdx.x == 0) init(at, 32);
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(at), "r"(rank ^ 1));
  if (rank == 0) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" :: "r"(remote) : "memory");
  } else {
    wait(at, 0);
    y[blockIdx.x / 2 * 32 + threadIdx.x] = 1;
  }
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
})");
  const Buffer<uint32_t> y(96);
  REQUIRE(kernel.run({6, 32, 64, 2}, y.data()) == 0);
  REQUIRE(y.read() == std::vector<uint32_t>(96, 1));
}

TEST(a_block_that_has_ended_is_not_reached) {
  const Kernel kernel(R"(
extern "C" __global__ void test() {
  extern __shared__ __align__(16) u64 memory[];
  const u32 at = address_of(memory);
  u32 rank, remote;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  if (rank == 1) return;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(at), "r"(1));
  for (int i = 0; i < 10; ++i) __nanosleep(20);
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" :: "r"(remote) : "memory");
})");
  REQUIRE(kernel.run({2, 1, 64, 2}) == illegal_address);
}

TEST(a_block_may_wait_for_blocks_before_it) {
  const Kernel kernel(R"(
extern "C" __global__ void test(int* turn, int* y) {
  int now;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
  } while (now != blockIdx.x);
  y[now] = now;
  asm volatile("st.release.gpu.global.s32 [%0], %1;" :: "l"(turn), "r"(now + 1) : "memory");
})");
  const Buffer<int> turn(std::vector<int>{0}), y(50);
  REQUIRE(kernel.run({50, 1}, turn.data(), y.data()) == 0);
  for (int i = 0; i < 50; ++i) REQUIRE(y.read()[static_cast<unsigned>(i)] == i);
}

TEST(counts_of_registers_are_checked) {
  for (const char* count : {"24", "240", "256"}) {
    const Kernel kernel(std::string("extern \"C\" __global__ void test() { asm volatile("
                                    "\"setmaxnreg.inc.sync.aligned.u32 %0;\" :: \"n\"(") +
                        count + ")); }");
    REQUIRE(kernel.run({1, 32}) == 0);
  }
  for (const char* count : {"20", "100", "264"}) {
    const Kernel kernel(std::string("extern \"C\" __global__ void test() { asm volatile("
                                    "\"setmaxnreg.dec.sync.aligned.u32 %0;\" :: \"n\"(") +
                        count + ")); }");
    REQUIRE(kernel.run({1, 32}) == illegal_address);
  }
}

}  // namespace
