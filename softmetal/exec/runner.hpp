// Runs threadgroups on one core: threads as fibers, barriers and simdgroup operations as meetings.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../msl/library.hpp"
#include "../stdlib/softmetal_abi.h"
#include "fiber.hpp"
#include "findings.hpp"
#include "memory.hpp"
#include "random.hpp"

namespace softmetal::exec {

using softmetal_abi::Args;
using softmetal_abi::CollectiveOp;
using softmetal_abi::Frame;
using softmetal_abi::Triple;

inline constexpr u32 kMaxThreads = 1024;

/// A place in the user's text, as instrumented code numbers them.
struct Site {
  std::string file;
  int line = 0;
};

/// One variable of static threadgroup memory; its address differs by worker.
struct StaticRegion {
  std::byte* begin = nullptr;
  std::size_t bytes = 0;
};

/// All that a dispatch has in common, read by every worker.
struct Job {
  void (*entry)(const Frame*) = nullptr;
  /// Fills in the calling worker's addresses of static threadgroup memory; returns how many.
  u32 (*regions)(void** begins, u64* sizes, u32 capacity) = nullptr;
  std::string kernel;
  const std::vector<Site>* sites = nullptr;
  const std::map<u32, std::string>* collective_files = nullptr;  // by site, of includes
  const std::byte* module_begin = nullptr;  // the kernel library's own code and constants
  const std::byte* module_end = nullptr;
  bool instrumented = false;
  msl::ExecOptions options;
  msl::Size3 groups, threads;            // of the grid, of a full threadgroup
  std::optional<msl::Size3> exact_grid;  // in threads
  MemoryMap memory;
  std::array<std::size_t, msl::kMaxThreadgroupSlots> dynamic_bytes{};
  std::vector<std::byte> zero_page;
  FindingSink* findings = nullptr;
  std::array<bool, msl::kMaxBuffers> constant{};  // bound to a constant argument
};

/// Hidden, so that calls between its parts are direct.
class __attribute__((visibility("hidden"))) Runner {
 public:
  Runner();
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  void begin(const Job& job);
  void run_group(msl::Size3 position, u32 linear);
  const msl::Counters& counters() const { return counters_; }

  // What kernels call, through the table of softmetal_abi::Runtime.
  static void collective_entry(void* lane, CollectiveOp op, u32 site, u32 kind);
  static void barrier_entry(u32 flags, u32 site);
  void* access(u64 address, u32 what, u32 site, std::size_t bytes);
  void inactive_lane(u32 site, u32 lane);
  msl::Counters& count() { return counters_; }
  u32 thread_index() const { return current_; }
  u32 lane() const { return current_ % msl::kSimdWidth; }
  u32 active_mask() const { return simds_[current_ / msl::kSimdWidth].live; }

  /// The runner of the calling thread.
  static Runner* current();

  // For the handler of signals: where a kernel of this thread is, if one runs.
  bool in_kernel() const { return in_kernel_; }
  const Job& job() const { return *job_; }
  msl::Size3 group_position() const { return position_; }
  msl::Size3 thread_position() const;
  const Site* last_site() const;
  bool is_stack_guard(const void* address) const;

 private:
  struct SimdGroup {
    u32 launched = 0, live = 0;  // threads that began, that have not returned
    u32 ready = 0;               // may run now
    u32 waiting = 0, at_barrier = 0;
    u32 site = 0;  // of the first that waits
    CollectiveOp op = nullptr;
    bool mixed = false;       // others wait elsewhere
    u32 ordered[2] = {0, 0};  // by memory space: stamps below are ordered in the simdgroup
    std::array<void*, 32> lanes{};
    std::array<u32, 32> sites{};
    std::array<u32, 32> kinds{};
    std::array<CollectiveOp, 32> ops{};
  };
  struct Fault {
    u32 site;
    int slot;
    std::int64_t offset;
    std::size_t bytes;
  };

  // Life of a threadgroup.
  static void body(void* self);
  void start_threads(msl::Size3 size);
  void finish_thread();
  void give_stack(u32 thread);
  void set_positions(msl::Size3 position, msl::Size3 size);
  void set_buffers();
  void poison();

  // Who runs next.
  bool in_order() const { return seed_ == 0; }
  void collective(void* lane, CollectiveOp op, u32 site, u32 kind);
  void barrier(u32 flags, u32 site);
  void block();
  void preempt();
  void switch_to(u32 next);
  int pick();
  int pick_in_order();
  int pick_random();
  int take(u32 simd, u32 lane);
  void resolve();
  void fire(SimdGroup& simd, u32 mask);
  void fire_odd(SimdGroup& simd);
  void fire_barrier();
  void check_barrier_sites();

  // Checks.
  std::byte* translate(u64 address, u32 what, std::size_t bytes, Fault& fault);
  std::byte* translate_raw(u64 address, u32 what, std::size_t bytes, Fault& fault);
  void check_group(std::byte* at, u32 what, std::size_t bytes, const Fault& fault);
  void check_device(DeviceShadow& shadow, std::byte* at, u32 what, std::size_t bytes,
                    const Fault& fault);
  void count_bytes(u32 what, std::size_t bytes, const Fault& fault);
  void out_of_steps();
  Accessor accessor(int space) const;
  void report(msl::FindingKind kind, const Fault& fault, std::string text);
  void report_site(msl::FindingKind kind, u32 site, u32 thread, std::string text);
  std::string access_text(u32 what, std::size_t bytes) const;

  const Job* job_ = nullptr;
  u64 seed_ = 0;
  u32 current_ = 0;
  u32 thread_count_ = 0, simd_count_ = 0, live_ = 0, at_barrier_ = 0;
  u32 barrier_flags_ = 0, barrier_site_ = 0;
  bool barrier_mixed_ = false;
  u32 clock_ = 1;
  u32 ordered_[2] = {0, 0};
  msl::Counters counters_;
  std::array<SimdGroup, kMaxThreads / 32> simds_;
  std::array<Context, kMaxThreads> contexts_;  // sp is null before a thread begins
  std::array<Stack*, kMaxThreads> thread_stacks_{};
  std::array<u32, kMaxThreads> barrier_sites_{};
  Context main_;
  std::vector<Frame> frames_;
  std::vector<std::unique_ptr<Stack>> stacks_;
  std::vector<Stack*> free_stacks_;
  Args args_{};
  msl::Size3 position_, size_;
  u32 group_linear_ = 0;
  volatile bool in_kernel_ = false;

  std::vector<std::byte> dynamic_;  // all [[threadgroup(n)]] memory, one after another
  std::array<std::size_t, msl::kMaxThreadgroupSlots> dynamic_offset_{};
  std::vector<StaticRegion> regions_;
  std::vector<std::size_t> region_shadow_;  // offsets in group_shadow_
  std::size_t dynamic_shadow_ = 0;
  GroupShadow group_shadow_;
  std::size_t shadow_bytes_ = 0;
  std::vector<std::byte> sink_;  // where faulty accesses go
  u64 steps_ = 0;
  u64 step_limit_ = 0;
  u32 last_site_ = ~0u;
  bool out_of_steps_ = false;
  Random random_;
  u64 until_preemption_ = 0;  // accesses
};

/// The use of a runner on the calling thread. Runners and their stacks are kept for later loans, of
/// any thread.
class __attribute__((visibility("hidden"))) RunnerLoan {
 public:
  RunnerLoan();
  ~RunnerLoan();
  RunnerLoan(const RunnerLoan&) = delete;
  RunnerLoan& operator=(const RunnerLoan&) = delete;
  Runner& runner() const { return *runner_; }

 private:
  std::unique_ptr<Runner> runner_;
};

/// The table handed to every kernel library.
const softmetal_abi::Runtime* runtime_table();

// Static storage: reached with one instruction, and safe to read in a signal handler.
extern constinit thread_local Runner* current_runner __attribute__((tls_model("initial-exec")));
inline Runner* Runner::current() { return current_runner; }

}  // namespace softmetal::exec
