// A thread of the host that runs clusters of blocks, one after the other: every CUDA thread is a
// fiber, and a fiber that waits gives way to the next one that is ready.
#pragma once

#include <deque>

#include "exec/state.hpp"

namespace softcuda {

class Worker {
 public:
  /// Of the calling thread of the host.
  static Worker& current();
  ~Worker();

  void run(Launch& launch, u32 cluster);

  Launch& launch() { return *launch_; }
  /// Makes fibers ready that waited.
  void wake(FiberList& waiting) {
    if (waiting.empty()) return;
    ready_.take(waiting);
    is_stalled_ = false;
  }
  /// Nothing has happened since all threads waited: who asks again need not give way.
  bool is_stalled() const { return is_stalled_; }
  std::vector<Block*>& blocks() { return blocks_; }

  /// Gives way; returns when somebody has made the fiber ready again. `what` it waits for.
  void suspend(Fiber* self, const char* what);
  /// Gives way to the others that are ready.
  void yield(Fiber* self);
  /// Ends the launch with a line on the standard error. `self` may be null.
  [[noreturn]] void fail(Fiber* self, const std::string& message);
  /// What happens when nothing else can, in lazy mode.
  void defer(std::function<void()> operation) {
    deferred_.push_back(std::move(operation));
    is_stalled_ = false;
  }

  void cluster_arrive(Fiber* self);
  void cluster_wait(Fiber* self);

  /// The place of an address; checked.
  Place place(Fiber* self, u32 address, u32 bytes, u32 align);
  bool owns(const void* stack) const;

 private:
  static void body(void* fiber);
  void set_up(u32 cluster);
  void set_up_block(Block& block, const Dim3& index);
  Fiber* fiber_at(std::size_t index);
  void finish(Fiber* self);
  Fiber* next_ready();
  void wake_pollers();
  void check_cluster();

  Launch* launch_ = nullptr;
  bool is_stalled_ = false;
  softmetal::exec::Context home_;
  FiberList ready_, cluster_waiting_;
  std::vector<std::unique_ptr<Block>> all_blocks_;
  std::vector<Block*> blocks_;  ///< of the cluster that runs
  std::vector<Fiber*> fibers_;
  std::vector<std::byte*> slabs_;
  std::deque<std::function<void()>> deferred_;
  u32 alive_ = 0, cluster_arrived_ = 0, cluster_generation_ = 0, idle_yields_ = 0;
};

/// The functions that kernels call.
extern const Runtime runtime;

// Parts of it, by file.
void meet(Thread*, Meeting kind, u32 mask, void (*last)(Exchange*, Thread*));
void leave_warp(Fiber* self);
void barrier(Thread*, u32 id, u32 threads, bool waits);
int barrier_or(Thread*, int value);
void leave_barriers(Fiber* self);
void mbarrier_init(Thread*, u32 address, u32 arrivals);
void mbarrier_arrive(Thread*, u32 address, u32 bytes);
bool mbarrier_try_wait(Thread*, u32 address, u32 parity);
/// Bytes of a copy are there.
void mbarrier_complete(Worker& worker, Fiber* self, const Place& barrier, u32 bytes);
void tensor_load(Thread*, u32 to, u64 map, const BoxAt& at, u32 barrier, u32 mask);
void tensor_store(Thread*, u64 map, const BoxAt& at, u32 from);
void bulk_load(Thread*, u32 to, u64 from, u32 bytes, u32 barrier);
void bulk_commit(Thread*);
void bulk_wait(Thread*, u32 groups, bool read);
void copy(Thread*, u32 to, u64 from, u32 size, u32 bytes);
void copy_commit(Thread*);
void copy_wait(Thread*, u32 groups);
void wgmma(Thread*, const WgmmaOp& op);
void wgmma_commit(Thread*);
void wgmma_wait(Thread*, u32 groups);
void multiply_f16(Exchange*, Thread*);
void multiply_bf16(Exchange*, Thread*);

}  // namespace softcuda
