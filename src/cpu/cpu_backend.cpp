#include "cpu/cpu_backend.hpp"

#include <string>

#include "cpu/backward.hpp"
#include "cpu/cpu_plan.hpp"
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
        pool_(caps_.threads) {}

  std::string name() const override { return "cpu"; }

  std::string description() const override {
    return std::string(caps_.target) + ", " + std::to_string(caps_.lanes) + " f32 lanes, " +
           std::to_string(caps_.threads) + (caps_.threads == 1 ? " thread" : " threads");
  }

  Plan plan(const Problem& problem) const override { return plan_cpu(problem, caps_); }

  void forward(const Plan& plan, const ForwardArgs& args) override {
    require_host_call(args.submission);
    if (!args.workspace.empty()) return run_forward(plan, args, pool_, args.workspace);
    const WorkspacePool::Lease lease = workspace_.take(plan.forward.workspace_bytes);
    run_forward(plan, args, pool_, lease.bytes());
  }

  void backward(const Plan& plan, const BackwardArgs& args) override {
    require_host_call(args.submission);
    if (!args.workspace.empty()) return run_backward(plan, args, pool_, args.workspace);
    const WorkspacePool::Lease lease = workspace_.take(plan.backward.workspace_bytes);
    run_backward(plan, args, pool_, lease.bytes());
  }

 private:
  const CpuCaps caps_;
  ThreadPool pool_;
  WorkspacePool workspace_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const ContextOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace ingot
