// The state of what runs: fibers that are CUDA threads, warps, blocks, a cluster, and a worker of
// the host that runs one cluster after the other.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fiber.hpp"  // softmetal's
#include "softcuda/abi.h"

namespace softcuda {

struct Block;
struct Warp;
class Worker;

/// What a launch asks for, and how it went.
struct Launch {
  std::string kernel;
  void (*entry)(void**) = nullptr;
  void** arguments = nullptr;
  Dim3 grid{}, block{};
  u32 cluster = 1, dynamic_bytes = 0;
  bool lazy_copies = false, lazy_products = false;  ///< they happen as late as they may
  std::atomic<u32> next_cluster = 0;
  std::atomic<bool> failed = false;

  u32 threads() const { return block.x * block.y * block.z; }
  u32 clusters() const { return grid.x / cluster * grid.y * grid.z; }
};

/// cp.async.
struct Copy {
  u8* to;
  u64 from;
  u32 size, bytes;
};

/// Groups of operations that a thread issued and has not waited for.
template <class Operation>
struct Groups {
  std::vector<Operation> operations;
  std::vector<std::size_t> ends;  ///< of committed groups

  void commit() { ends.push_back(operations.size()); }
  void clear() {
    operations.clear();
    ends.clear();
  }
  /// Operations that must be done so that at most `left` groups are not.
  std::size_t due(std::size_t left) const {
    return ends.size() <= left ? 0 : ends[ends.size() - 1 - left];
  }
  void drop(std::size_t count) {
    operations.erase(operations.begin(), operations.begin() + static_cast<std::ptrdiff_t>(count));
    while (!ends.empty() && ends.front() <= count) ends.erase(ends.begin());
    for (std::size_t& end : ends) end -= count;
  }
};

/// Accumulators as they were when a product was issued; what the thread sees is poison.
struct SavedSums {
  float* place;
  std::vector<float> values;
};

struct Fiber : Thread {
  softmetal::exec::Context context;
  std::byte* top = nullptr;  ///< of the stack
  Fiber* next = nullptr;     ///< in the list that it is in
  Worker* worker = nullptr;
  Block* block = nullptr;
  Warp* warp_state = nullptr;
  const char* waits_for = "";
  u32 index = 0;  ///< in its block
  u32 cluster_generation = 0;
  bool has_arrived = false;  ///< at the cluster's barrier, and has not waited
  Groups<Copy> copies;
  Groups<std::function<void()>> stores;
  Groups<WgmmaOp> products;
  std::vector<SavedSums> saved;
  const u8* polled = nullptr;  ///< the mbarrier that it asked for last
  u32 products_left = 0;       ///< groups that may stay, of a wait under way
};

/// First in, first out.
class FiberList {
 public:
  bool empty() const { return head_ == nullptr; }
  Fiber* front() const { return head_; }
  void push(Fiber* fiber) {
    fiber->next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = fiber;
    tail_ = fiber;
  }
  Fiber* pop() {
    Fiber* const fiber = head_;
    if (fiber != nullptr) head_ = fiber->next;
    return fiber;
  }
  void take(FiberList& other) {
    if (other.empty()) return;
    (head_ == nullptr ? head_ : tail_->next) = other.head_;
    tail_ = other.tail_;
    other.head_ = nullptr;
  }

 private:
  Fiber *head_ = nullptr, *tail_ = nullptr;
};

struct Warp : WarpLink {
  std::array<Fiber*, 32> lanes{};
  u32 alive = 0, arrived = 0, mask = 0;
  Meeting kind = Meeting::none;
  void (*last)(Exchange*, Thread*) = nullptr;
  FiberList waiting;
};

struct NamedBarrier {
  u32 arrived = 0, threads = 0;  ///< threads of the barrier under way; 0: all that live
  int any = 0, result = 0;       ///< of __syncthreads_or
  FiberList waiting;
};

struct Block {
  u8* window = nullptr;
  u32 rank = 0, alive = 0, static_end = 0;
  std::array<Warp, 32> warps;
  std::array<NamedBarrier, 16> barriers;
  std::vector<std::pair<const void*, u32>> statics;       ///< variables by their site
  std::vector<std::pair<u32, FiberList>> mbarrier_waits;  ///< by address
  std::vector<Fiber*> fibers;
};

/// A place in the shared memory of a cluster.
struct Place {
  Block* block;
  u32 offset;
  u8* data() const { return block->window + offset; }
};

inline Fiber* fiber_of(Thread* thread) { return static_cast<Fiber*>(thread); }

}  // namespace softcuda
