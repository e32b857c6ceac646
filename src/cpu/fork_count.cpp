#include "cpu/fork_count.hpp"

#include <new>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

namespace ingot {
namespace {

std::atomic<unsigned> forks{0};

#if __has_include(<pthread.h>)
bool count_forks() {
  const auto child = [] { forks.fetch_add(1, std::memory_order_relaxed); };
  if (pthread_atfork(nullptr, nullptr, child) != 0) throw std::bad_alloc();  // all it can lack
  return true;
}
#endif

}  // namespace

unsigned fork_count() {
#if __has_include(<pthread.h>)
  static const bool counting = count_forks();
  static_cast<void>(counting);
#endif
  return forks.load(std::memory_order_relaxed);
}

}  // namespace ingot
