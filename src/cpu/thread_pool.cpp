#include "cpu/thread_pool.hpp"

#include <algorithm>

namespace ingot {

ThreadPool::ThreadPool(int threads, ParallelRegion region)
    : threads_(std::max(threads, 1)), region_(region), share_{threads_ - 1} {}

void ThreadPool::run_job(CrewJob& job, int limit) {
  const std::int64_t useful = std::min<std::int64_t>({threads_, limit, job.units});
  if (useful <= 1 || is_within_unit()) {
    for (std::int64_t unit = 0; unit < job.units; ++unit) job.call(job.context, unit, 0);
    return;
  }
  if (region_.run != nullptr && run_in_region(job, static_cast<int>(useful))) return job.rethrow();
  std::call_once(started_, [this] { crew_ = Crew::of_process(); });
  crew_->run(job, share_, static_cast<int>(useful) - 1);
}

/// False where the region called nothing.
bool ThreadPool::run_in_region(CrewJob& job, int members) {
  struct Region {
    CrewJob& job;
    const int members;
    std::atomic<int> entered{0};
  } region{job, members};
  region_.run(
      region_.user, members,
      [](void* argument) {
        auto& r = *static_cast<Region*>(argument);
        // A second call on one thread finds no unit; a call too many has no scratch memory.
        const int worker = r.entered.fetch_add(1, std::memory_order_relaxed);
        if (worker < r.members) r.job.work(worker);
      },
      &region);
  return region.entered.load(std::memory_order_relaxed) > 0;
}

}  // namespace ingot
