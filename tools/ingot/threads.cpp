#include "threads.hpp"

#include <atomic>
#include <exception>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

namespace ingot::cli {
namespace {

void say_fewer(int threads, int had) {
  static bool said = false;
  if (said || had == threads) return;
  said = true;
  std::cerr << "ingot: note: " << had << " of " << threads
            << " threads, the system has no more (a limit of the user or the container)\n";
}

}  // namespace

int run_on_threads(int threads, const std::function<void(int)>& f) {
  std::atomic<bool> started{false};
  std::mutex mutex;
  std::exception_ptr error;
  const auto guarded = [&](int t) {
    try {
      f(t);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  workers.reserve(static_cast<std::size_t>(threads));
  try {
    for (int t = 1; t < threads; ++t) {
      workers.emplace_back([&, t] {
        started.wait(false);
        guarded(t);
      });
    }
  } catch (const std::exception&) {
    // Fewer, then: no work here depends on how many there are.
  }
  started = true;
  started.notify_all();
  guarded(0);
  for (std::thread& worker : workers) worker.join();
  const int had = static_cast<int>(workers.size()) + 1;
  say_fewer(threads, had);
  if (error) std::rethrow_exception(error);
  return had;
}

}  // namespace ingot::cli
