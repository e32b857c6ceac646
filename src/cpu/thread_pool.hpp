// The threads that the plans of one context run on: the caller of run() and, at most, a number of
// the process's crew. Several callers may run at once.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>

#include "core/backend.hpp"
#include "core/float_mode.hpp"
#include "cpu/crew.hpp"

namespace ingot {

class ThreadPool {
 public:
  /// threads: the caller included, >= 1. The crew is asked for with the first run() that needs it,
  /// which is never where `region` always has threads of its own.
  explicit ThreadPool(int threads, ParallelRegion region = {});
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls f(unit, worker) for every unit in [0, units), in ascending order of start, on at most
  /// `limit` threads. worker < min(limit, threads()) differs between units that run at the same
  /// time. Returns when all are done. The first exception of a unit stops the rest and is thrown
  /// here. Within a unit that runs beside others, a run stays on its thread.
  template <class F>
  void run(std::int64_t units, F&& f, int limit = 1 << 20) {
    using Function = std::remove_reference_t<F>;
    CrewJob job;
    job.units = units;
    job.context = const_cast<void*>(static_cast<const void*>(&f));
    job.call = [](void* context, std::int64_t unit, int worker) {
      const FloatMode mode;  // of a thread of the caller's region, say, which has its own
      (*static_cast<Function*>(context))(unit, worker);
    };
    run_job(job, limit);
  }

 private:
  void run_job(CrewJob& job, int limit);
  bool run_in_region(CrewJob& job, int members);

  const int threads_;
  const ParallelRegion region_;
  CrewShare share_;
  std::once_flag started_;
  std::shared_ptr<Crew> crew_;
};

}  // namespace ingot
