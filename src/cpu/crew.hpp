// The worker threads of this process, shared by all pools: as many as the pools that are at work
// may use at the same time, and never more. A pool that is made for another number of threads
// brings no others along.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ingot {

/// One pool's share of the crew; guarded by the crew's mutex.
struct CrewShare {
  const int most;  ///< workers of the crew that may work for the pool at the same time
  int jobs = 0;    ///< the pool's runs that the crew knows
  int busy = 0;    ///< workers within them
};

/// Units of one run; lies on its caller's stack.
struct CrewJob {
  std::int64_t units = 0;
  void* context = nullptr;
  void (*call)(void*, std::int64_t, int) = nullptr;
  std::atomic<std::int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;    // guarded by error_mutex
  CrewShare* share = nullptr;  // the rest: guarded by the crew's mutex
  int seats = 0;               // workers that may still join
  int joined = 1;              // the caller is worker 0
  std::atomic<int> active{0};  // workers inside

  /// Units until there are none left, or one has thrown.
  void work(int worker);
  void rethrow() const {
    if (error) std::rethrow_exception(error);
  }
};

/// Whether this thread is within a unit.
bool is_within_unit();

class Crew {
 public:
  /// The one of this process; the last that holds it ends its threads.
  static std::shared_ptr<Crew> of_process();

  Crew() = default;
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  /// Runs the job on the calling thread and at most `seats` workers.
  void run(CrewJob& job, CrewShare& share, int seats);

 private:
  void enter(CrewJob& job);
  void leave(CrewJob& job);
  void grow();
  CrewJob* join_any(int& worker);
  void serve();
  bool spin_for_job(std::uint64_t seen) const;

  std::mutex mutex_;
  std::condition_variable job_arrived_;
  std::condition_variable worker_left_;
  std::vector<CrewJob*> jobs_;        // guarded by mutex_, like the next four
  std::vector<std::thread> workers_;  // and by nothing once stopping_
  int wanted_ = 0;                    // workers that the pools at work may use
  int sleepers_ = 0;
  std::chrono::steady_clock::time_point no_thread_until_{};
  std::atomic<std::uint64_t> arrivals_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace ingot
