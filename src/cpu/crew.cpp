#include "cpu/crew.hpp"

#include <hwy/cache_control.h>

#include <algorithm>
#include <new>
#include <system_error>

#include "cpu/fork_count.hpp"

namespace ingot {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the pause between two calls of a program that does little else, shorter than anybody
// notices.
constexpr auto spin_time = std::chrono::microseconds(40);

// Where the system has no thread to give, a call asks again after this time at the earliest.
constexpr auto thread_pause = std::chrono::seconds(1);

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

/// Where the crew of this process is found. Never destroyed: threads may look while a process ends.
struct Registry {
  const unsigned forks = fork_count();
  std::mutex mutex;
  std::weak_ptr<Crew> crew;  // guarded by mutex
};

constinit std::atomic<Registry*> registry_slot{nullptr};

}  // namespace

bool is_within_unit() { return at_work; }

void CrewJob::work(int worker) {
  at_work = true;
  try {
    for (;;) {
      const std::int64_t unit = next.fetch_add(1, std::memory_order_relaxed);
      if (unit >= units) break;
      call(context, unit, worker);
    }
  } catch (...) {
    const std::lock_guard lock(error_mutex);
    if (!error) error = std::current_exception();
    next.store(units, std::memory_order_relaxed);
  }
  at_work = false;
}

std::shared_ptr<Crew> Crew::of_process() {
  Registry& registry = of_this_process(registry_slot, [] { return std::make_unique<Registry>(); });
  const std::lock_guard lock(registry.mutex);
  std::shared_ptr<Crew> crew = registry.crew.lock();
  if (crew == nullptr) registry.crew = crew = std::make_shared<Crew>();
  return crew;
}

Crew::~Crew() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ++arrivals_;
  }
  job_arrived_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Crew::run(CrewJob& job, CrewShare& share, int seats) {
  job.share = &share;
  job.seats = seats;
  enter(job);
  job.work(0);
  leave(job);
  job.rethrow();
}

void Crew::enter(CrewJob& job) {
  int wake = 0;
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(&job);  // the last that can fail
    if (job.share->jobs++ == 0) wanted_ += job.share->most;
    grow();
    ++arrivals_;
    wake = std::min(job.seats, sleepers_);
  }
  for (int i = 0; i < wake; ++i) job_arrived_.notify_one();
}

// After this no worker knows the job, which lies on the caller's stack.
void Crew::leave(CrewJob& job) {
  {
    const std::lock_guard lock(mutex_);
    std::erase(jobs_, &job);
    if (--job.share->jobs == 0) wanted_ -= job.share->most;
  }
  const auto idle = [&job] { return job.active.load(std::memory_order_acquire) == 0; };
  spin_until(idle);
  std::unique_lock lock(mutex_);
  worker_left_.wait(lock, idle);
}

/// The system may give no more: go on with what there is, the bits do not depend on their number.
void Crew::grow() {
  const auto wanted = static_cast<std::size_t>(wanted_);
  if (workers_.size() >= wanted || Clock::now() < no_thread_until_) return;
  try {
    workers_.reserve(wanted);
    while (workers_.size() < wanted) workers_.emplace_back([this] { serve(); });
  } catch (const std::system_error&) {
    no_thread_until_ = Clock::now() + thread_pause;
  } catch (const std::bad_alloc&) {
    no_thread_until_ = Clock::now() + thread_pause;
  }
}

CrewJob* Crew::join_any(int& worker) {
  for (CrewJob* job : jobs_) {
    if (job->seats == 0 || job->share->busy == job->share->most) continue;
    if (job->next.load(std::memory_order_relaxed) >= job->units) continue;
    --job->seats;
    ++job->share->busy;
    worker = job->joined++;
    job->active.fetch_add(1, std::memory_order_relaxed);
    return job;
  }
  return nullptr;
}

bool Crew::spin_for_job(std::uint64_t seen) const {
  return spin_until([&] { return arrivals_.load(std::memory_order_acquire) != seen; });
}

void Crew::serve() {
  for (;;) {
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    const std::uint64_t seen = arrivals_;
    int worker = 0;
    if (CrewJob* const job = join_any(worker)) {
      CrewShare* const share = job->share;
      lock.unlock();
      job->work(worker);
      lock.lock();
      --share->busy;
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
