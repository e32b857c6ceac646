#include "cpu/fork_count.hpp"

#include <atomic>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

namespace ingot {
namespace {

std::atomic<unsigned> forks{0};

}  // namespace

unsigned fork_count() {
#if __has_include(<pthread.h>)
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(registered);
#endif
  return forks.load(std::memory_order_relaxed);
}

}  // namespace ingot
