#include "cpu/cpu_backend.hpp"

#include <atomic>
#include <span>
#include <string>
#include <vector>

#include "cpu/backward.hpp"
#include "cpu/cpu_plan.hpp"
#include "cpu/fork_count.hpp"
#include "cpu/forward.hpp"
#include "cpu/thread_pool.hpp"
#include "cpu/workspace.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace ingot {
namespace {

int usable_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const ContextOptions& options)
      : caps_(detect_cpu(options.num_threads > 0 ? options.num_threads : usable_threads())),
        threads_(new Threads(caps_.threads, options.parallel_region)) {}

  ~CpuBackend() override {
    Threads* const threads = threads_.load();
    if (threads->forks == fork_count()) delete threads;  // else a parent's: cannot be joined here
  }

  std::string name() const override { return "cpu"; }

  std::string description() const override {
    return std::string(caps_.target) + ", " + std::to_string(caps_.lanes) + " f32 lanes, " +
           std::to_string(caps_.threads) + (caps_.threads == 1 ? " thread" : " threads");
  }

  Plan plan(const Problem& problem) const override { return plan_cpu(problem, caps_); }

  void forward(const Plan& plan, const ForwardArgs& args) override {
    require_host_call(args.submission, args.parts);
    Threads& threads = own_threads();
    if (!args.workspace.empty()) return run_forward(plan, args, threads.pool, args.workspace);
    const WorkspacePool::Lease lease = threads.workspace.take(plan.forward.workspace_bytes);
    run_forward(plan, args, threads.pool, lease.bytes());
  }

  void backward(const Plan& plan, const BackwardArgs& args) override {
    require_host_call(args.submission, args.parts);
    Threads& threads = own_threads();
    if (!args.workspace.empty()) return run_backward(plan, args, threads.pool, args.workspace);
    const WorkspacePool::Lease lease = threads.workspace.take(plan.backward.workspace_bytes);
    run_backward(plan, args, threads.pool, lease.bytes());
  }

  void forward_group(std::span<const PlannedForward> calls) override {
    run_group(calls, [this](const PlannedForward& c) { forward(*c.plan, *c.args); });
  }

  void backward_group(std::span<const PlannedBackward> calls) override {
    run_group(calls, [this](const PlannedBackward& c) { backward(*c.plan, *c.args); });
  }

 private:
  /// Small calls side by side, each on the thread that takes it; the others on all threads, one
  /// after the other.
  template <class Planned, class F>
  void run_group(std::span<const Planned> calls, F&& run_call) {
    // Multiply-adds: what gets one thread alone, too, or, where there are calls enough for all
    // threads, some tenths of a millisecond.
    const bool many = calls.size() >= 2 * static_cast<std::size_t>(caps_.threads);
    const double small = many ? 16e6 : 1 << 20;
    std::vector<const Planned*> side_by_side;
    for (const Planned& call : calls) {
      if (multiply_adds(call.plan->problem) < small) side_by_side.push_back(&call);
    }
    own_threads().pool.run(
        static_cast<std::int64_t>(side_by_side.size()),
        [&](std::int64_t i, int) { run_call(*side_by_side[static_cast<std::size_t>(i)]); });
    for (const Planned& call : calls) {
      if (multiply_adds(call.plan->problem) >= small) run_call(call);
    }
  }

  struct Threads {
    explicit Threads(int count, ParallelRegion region = {}) : pool(count, region) {}
    const unsigned forks = fork_count();
    ThreadPool pool;
    WorkspacePool workspace;
  };

  /// In the child of a fork the parent's threads are gone, a parallel region's too.
  Threads& own_threads() {
    return of_this_process(threads_, [&] { return std::make_unique<Threads>(caps_.threads); });
  }

  const CpuCaps caps_;
  std::atomic<Threads*> threads_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const ContextOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace ingot
