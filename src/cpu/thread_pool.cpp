#include "cpu/thread_pool.hpp"

#include <hwy/cache_control.h>

#include <algorithm>
#include <chrono>
#include <system_error>

namespace ingot {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the pause between two calls of a program that does little else, shorter than anybody
// notices.
constexpr auto spin_time = std::chrono::microseconds(40);

/// Whether this thread is within a unit.
thread_local bool at_work = false;

template <class Condition>
bool spin_until(const Condition& condition) {
  const auto end = Clock::now() + spin_time;
  do {
    for (int i = 0; i < 16; ++i) {
      if (condition()) return true;
      hwy::Pause();
    }
  } while (Clock::now() < end);
  return condition();
}

}  // namespace

ThreadPool::ThreadPool(int threads, ParallelRegion region)
    : threads_(std::max(threads, 1)), region_(region) {}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ++arrivals_;
  }
  job_arrived_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::start_threads() {
  try {
    for (int i = 1; i < threads_; ++i) workers_.emplace_back([this] { serve(); });
  } catch (const std::system_error&) {
    return;  // the system gives no more: go on with these, the bits do not depend on their number
  }
}

void ThreadPool::work(Job& job, int worker) {
  at_work = true;
  try {
    for (;;) {
      const std::int64_t unit = job.next.fetch_add(1, std::memory_order_relaxed);
      if (unit >= job.units) break;
      job.call(job.context, unit, worker);
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!job.error) job.error = std::current_exception();
    job.next.store(job.units, std::memory_order_relaxed);
  }
  at_work = false;
}

void ThreadPool::run_job(Job& job, int limit) {
  const std::int64_t useful = std::min<std::int64_t>({threads_, limit, job.units});
  if (useful <= 1 || at_work) {
    for (std::int64_t unit = 0; unit < job.units; ++unit) job.call(job.context, unit, 0);
    return;
  }
  if (region_.run != nullptr && run_in_region(job, static_cast<int>(useful))) {
    if (job.error) std::rethrow_exception(job.error);
    return;
  }
  std::call_once(started_, [this] { start_threads(); });
  job.seats = static_cast<int>(useful) - 1;
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(&job);
    ++arrivals_;
    wake = sleepers_ > 0;
  }
  if (wake) job_arrived_.notify_all();
  work(job, 0);
  wait_for_workers(job);
  if (job.error) std::rethrow_exception(job.error);
}

/// False where the region called nothing.
bool ThreadPool::run_in_region(Job& job, int members) {
  struct Region {
    ThreadPool& pool;
    Job& job;
    const int members;
    std::atomic<int> entered{0};
  } region{*this, job, members};
  region_.run(
      region_.user, members,
      [](void* argument) {
        auto& r = *static_cast<Region*>(argument);
        // A second call on one thread finds no unit; a call too many has no scratch memory.
        const int worker = r.entered.fetch_add(1, std::memory_order_relaxed);
        if (worker < r.members) r.pool.work(r.job, worker);
      },
      &region);
  return region.entered.load(std::memory_order_relaxed) > 0;
}

// After this no worker knows the job, which lies on the caller's stack.
void ThreadPool::wait_for_workers(Job& job) {
  {
    const std::lock_guard lock(mutex_);
    std::erase(jobs_, &job);
  }
  const auto idle = [&job] { return job.active.load(std::memory_order_acquire) == 0; };
  spin_until(idle);
  std::unique_lock lock(mutex_);
  worker_left_.wait(lock, idle);
}

ThreadPool::Job* ThreadPool::join_any(int& worker) {
  for (Job* job : jobs_) {
    if (job->seats == 0 || job->next.load(std::memory_order_relaxed) >= job->units) continue;
    --job->seats;
    worker = job->joined++;
    job->active.fetch_add(1, std::memory_order_relaxed);
    return job;
  }
  return nullptr;
}

bool ThreadPool::spin_for_job(std::uint64_t seen) const {
  return spin_until([&] { return arrivals_.load(std::memory_order_acquire) != seen; });
}

void ThreadPool::serve() {
  for (;;) {
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    const std::uint64_t seen = arrivals_;
    int worker = 0;
    if (Job* const job = join_any(worker)) {
      lock.unlock();
      work(*job, worker);
      lock.lock();
      job->active.fetch_sub(1, std::memory_order_release);
      lock.unlock();
      worker_left_.notify_all();
      continue;
    }
    lock.unlock();
    if (spin_for_job(seen)) continue;
    lock.lock();
    ++sleepers_;
    job_arrived_.wait(lock, [&] { return arrivals_ != seen; });
    --sleepers_;
  }
}

}  // namespace ingot
