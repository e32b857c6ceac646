// Threads shared by every plan that runs on the CPU. The caller of run() works, too; several
// callers may run at once.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "core/backend.hpp"

namespace ingot {

class ThreadPool {
 public:
  /// threads: the caller included, >= 1. They start with the first run() that needs them, which is
  /// never where `region` always has threads of its own.
  explicit ThreadPool(int threads, ParallelRegion region = {});
  ~ThreadPool();
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
    Job job;
    job.units = units;
    job.context = const_cast<void*>(static_cast<const void*>(&f));
    job.call = [](void* context, std::int64_t unit, int worker) {
      (*static_cast<Function*>(context))(unit, worker);
    };
    run_job(job, limit);
  }

 private:
  struct Job {
    std::int64_t units = 0;
    void* context = nullptr;
    void (*call)(void*, std::int64_t, int) = nullptr;
    std::atomic<std::int64_t> next{0};
    std::exception_ptr error;    // guarded by mutex_
    int seats = 0;               // workers that may still join; guarded by mutex_
    int joined = 1;              // the caller is worker 0; guarded by mutex_
    std::atomic<int> active{0};  // workers inside
  };

  void run_job(Job& job, int limit);
  bool run_in_region(Job& job, int members);
  void start_threads();
  void work(Job& job, int worker);
  void wait_for_workers(Job& job);
  Job* join_any(int& worker);
  void serve();
  bool spin_for_job(std::uint64_t seen) const;

  const int threads_;
  const ParallelRegion region_;
  std::mutex mutex_;
  std::condition_variable job_arrived_;
  std::condition_variable worker_left_;
  std::vector<Job*> jobs_;  // guarded by mutex_
  int sleepers_ = 0;        // guarded by mutex_
  std::atomic<std::uint64_t> arrivals_{0};
  std::atomic<bool> stopping_{false};
  std::once_flag started_;
  std::vector<std::thread> workers_;
};

}  // namespace ingot
