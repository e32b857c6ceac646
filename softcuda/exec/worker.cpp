#include "exec/worker.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <new>

#include "exec/fault.hpp"

namespace softcuda {
namespace {

using softmetal::exec::leave_context;
using softmetal::exec::switch_context;

constexpr std::size_t window_bytes = 512 << 10;
constexpr std::size_t page = 4096;
constexpr std::size_t fibers_of_slab = 128;

std::byte* map(std::size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(memory);
}

/// Fibers' memory, each aligned to its size.
std::byte* map_slab() {
  constexpr std::size_t bytes = fibers_of_slab * fiber_bytes;
  std::byte* const memory = map(bytes + fiber_bytes);
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  return memory + (fiber_bytes - address % fiber_bytes) % fiber_bytes;
}

}  // namespace

Worker& Worker::current() {
  static thread_local Worker worker;
  return worker;
}

Worker::~Worker() {
  for (Fiber* fiber : fibers_) fiber->~Fiber();
  for (std::byte* slab : slabs_) munmap(slab, fibers_of_slab * fiber_bytes);
  for (const auto& block : all_blocks_) munmap(block->window, window_bytes);
}

bool Worker::owns(const void* stack) const {
  const auto* const p = static_cast<const std::byte*>(stack);
  for (const std::byte* slab : slabs_) {
    if (p >= slab && p < slab + fibers_of_slab * fiber_bytes) return launch_ != nullptr;
  }
  return false;
}

/// The state of the thread lies at the start, a guard page below the stack. Tops are staggered:
/// stacks a power of two apart would fall into the same sets of the host's cache.
Fiber* Worker::fiber_at(std::size_t index) {
  while (fibers_.size() <= index) {
    const std::size_t place = fibers_.size() % fibers_of_slab;
    if (place == 0) slabs_.push_back(map_slab());
    std::byte* const memory = slabs_.back() + place * fiber_bytes;
    mprotect(memory + page, page, PROT_NONE);
    static_assert(sizeof(Fiber) <= page);
    auto* const fiber = new (memory) Fiber;
    fiber->top = memory + fiber_bytes - place % 37 * 320;
    fiber->top -= reinterpret_cast<std::uintptr_t>(fiber->top) % 64;
    fiber->worker = this;
    fiber->runtime = &runtime;
    fibers_.push_back(fiber);
  }
  return fibers_[index];
}

void Worker::run(Launch& launch, u32 cluster) {
  launch_ = &launch;
  set_up(cluster);
  Fiber* const first = ready_.pop();
  switch_context(home_, first->context);
  launch_ = nullptr;
}

void Worker::set_up(u32 cluster) {
  Launch& launch = *launch_;
  ready_ = {};
  cluster_waiting_ = {};
  deferred_.clear();
  is_stalled_ = false;
  cluster_arrived_ = cluster_generation_ = 0;
  alive_ = launch.cluster * launch.threads();
  blocks_.clear();
  for (u32 rank = 0; rank < launch.cluster; ++rank) {
    if (all_blocks_.size() <= rank) {
      all_blocks_.push_back(std::make_unique<Block>());
      all_blocks_.back()->window = reinterpret_cast<u8*>(map(window_bytes));
    }
    Block& block = *all_blocks_[rank];
    blocks_.push_back(&block);
    block.rank = rank;
    const u32 wide = launch.grid.x / launch.cluster;
    set_up_block(block, {cluster % wide * launch.cluster + rank, cluster / wide % launch.grid.y,
                         cluster / wide / launch.grid.y});
  }
}

void Worker::set_up_block(Block& block, const Dim3& index) {
  const Launch& launch = *launch_;
  const u32 threads = launch.threads(), end = dynamic_begin + launch.dynamic_bytes;
  std::memset(block.window, 0xFF, end + 4096);  // NaN, in every type
  block.alive = threads;
  block.static_end = (end + 15) / 16 * 16;
  block.statics.clear();
  block.mbarrier_waits.clear();
  block.fibers.clear();
  for (Warp& warp : block.warps) warp = Warp{};
  for (NamedBarrier& barrier : block.barriers) barrier = NamedBarrier{};
  for (u32 i = 0; i < threads; ++i) {
    Fiber& fiber = *fiber_at(block.rank * threads + i);
    Warp& warp = block.warps[i / 32];
    fiber.thread_index = {i % launch.block.x, i / launch.block.x % launch.block.y,
                          i / launch.block.x / launch.block.y};
    fiber.block_index = index;
    fiber.block_size = launch.block;
    fiber.grid_size = launch.grid;
    fiber.index = i;
    fiber.lane = i % 32;
    fiber.cluster_rank = block.rank;
    fiber.dynamic_bytes = launch.dynamic_bytes;
    fiber.window_end = end;
    fiber.shared = block.window;
    fiber.warp = fiber.warp_state = &warp;
    fiber.block = &block;
    fiber.has_arrived = false;
    fiber.polled = nullptr;
    fiber.copies.clear();
    fiber.stores.clear();
    fiber.products.clear();
    fiber.saved.clear();
    fiber.context = softmetal::exec::context_on(fiber.top, &Worker::body, &fiber);
    warp.lanes[i % 32] = &fiber;
    warp.alive |= 1u << i % 32;
    block.fibers.push_back(&fiber);
    ready_.push(&fiber);
  }
}

void Worker::body(void* argument) {
  auto* const fiber = static_cast<Fiber*>(argument);
  softmetal::exec::arrived(fiber->context);
  Worker& worker = *fiber->worker;
  worker.launch_->entry(worker.launch_->arguments);
  worker.finish(fiber);
}

void Worker::finish(Fiber* self) {
  for (const auto& store : self->stores.operations) store();
  if (!self->products.operations.empty()) {
    fail(self, "wgmma: the thread ends before it has waited for its products");
  }
  --alive_;
  --self->block->alive;
  leave_warp(self);
  leave_barriers(self);
  check_cluster();
  Fiber* const next = alive_ == 0 ? nullptr : next_ready();
  leave_context(self->context, next == nullptr ? home_ : next->context);
  __builtin_unreachable();
}

void Worker::suspend(Fiber* self, const char* what) {
  self->waits_for = what;
  Fiber* const next = next_ready();
  if (next != self) switch_context(self->context, next->context);
}

void Worker::yield(Fiber* self) {
  if (launch_->failed.load(std::memory_order_relaxed)) fail(nullptr, "");
  ready_.push(self);
  is_stalled_ = false;
  // Alone: it can only wait for a block that another worker runs.
  if (ready_.front() == self && ++idle_yields_ % 64 == 0) sched_yield();
  suspend(self, "others");
}

/// The next fiber to run. If there is none: what was put off happens, and then those who ask
/// whether a barrier's phase is over are told that it is not.
Fiber* Worker::next_ready() {
  while (ready_.empty()) {
    if (launch_->failed.load(std::memory_order_relaxed)) fail(nullptr, "");
    if (!deferred_.empty()) {
      const std::function<void()> operation = std::move(deferred_.front());
      deferred_.pop_front();
      operation();
      continue;
    }
    wake_pollers();
    if (!ready_.empty()) continue;
    for (const Block* block : blocks_) {
      for (Fiber* fiber : block->fibers) {
        if ((fiber->warp_state->alive >> fiber->lane & 1) == 0) continue;
        fail(fiber, std::string("all threads wait for ever, this one for ") + fiber->waits_for);
      }
    }
    fail(nullptr, "all threads wait for ever");
  }
  return ready_.pop();
}

void Worker::wake_pollers() {
  for (Block* block : blocks_) {
    for (auto& [address, waiting] : block->mbarrier_waits) ready_.take(waiting);
  }
  is_stalled_ = true;
}

void Worker::fail(Fiber* self, const std::string& message) {
  if (!launch_->failed.exchange(true)) {
    std::string who;
    if (self != nullptr) {
      const auto text = [](const Dim3& x) {
        return "(" + std::to_string(x.x) + "," + std::to_string(x.y) + "," + std::to_string(x.z) +
               ")";
      };
      who = " block " + text(self->block_index) + " thread " + text(self->thread_index);
    }
    std::fprintf(stderr, "softcuda: error: %s%s: %s\n", launch_->kernel.c_str(), who.c_str(),
                 message.c_str());
  }
  softmetal::exec::Context abandoned;
  leave_context(abandoned, home_);
  __builtin_unreachable();
}

void Worker::cluster_arrive(Fiber* self) {
  if (self->has_arrived) fail(self, "barrier.cluster.arrive: twice without a wait");
  self->has_arrived = true;
  self->cluster_generation = cluster_generation_;
  ++cluster_arrived_;
  check_cluster();
}

void Worker::cluster_wait(Fiber* self) {
  if (!self->has_arrived) fail(self, "barrier.cluster.wait: without an arrival");
  self->has_arrived = false;
  if (self->cluster_generation != cluster_generation_) return;
  cluster_waiting_.push(self);
  suspend(self, "the cluster's barrier");
}

/// Threads that have ended count as arrived.
void Worker::check_cluster() {
  if (cluster_arrived_ == 0 || cluster_arrived_ != alive_) return;
  cluster_arrived_ = 0;
  ++cluster_generation_;
  wake(cluster_waiting_);
}

Place Worker::place(Fiber* self, u32 address, u32 bytes, u32 align) {
  const u32 rank = address >> window_shift, offset = address & ((1u << window_shift) - 1);
  Block* block = self->block;
  if (rank != 0) {
    if (rank > blocks_.size()) {
      fail(self, "shared memory: the cluster has no block " + std::to_string(rank - 1));
    }
    block = blocks_[rank - 1];
    if (block->alive == 0) {
      fail(self, "shared memory: block " + std::to_string(rank - 1) +
                     " of the cluster has ended already");
    }
  }
  const u32 end = self->window_end;
  const bool inside =
      offset >= dynamic_begin && bytes <= window_bytes &&
      (offset + bytes <= end || (offset >= end && offset + bytes <= block->static_end));
  if (!inside) {
    fail(self, "shared memory: " + std::to_string(bytes) + " bytes at address " +
                   std::to_string(offset) + " lie outside of [" + std::to_string(dynamic_begin) +
                   ", " + std::to_string(end) + ")");
  }
  if (offset % align != 0) {
    fail(self, "shared memory: address " + std::to_string(offset) + " is not aligned to " +
                   std::to_string(align) + " bytes");
  }
  return {block, offset};
}

}  // namespace softcuda
