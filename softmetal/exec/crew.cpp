#include "crew.hpp"

#include <algorithm>
#include <thread>

namespace softmetal::exec {

// Never destroyed: helpers may wait on it while the process ends.
Helpers& Helpers::instance() {
  static Helpers* const helpers = new Helpers;
  return *helpers;
}

void Helpers::run(SharedWork& work, unsigned helpers) {
  if (helpers == 0) {
    work.take_part();
    return;
  }
  Entry entry{&work, helpers, 0};
  {
    const std::lock_guard lock(mutex_);
    entries_.push_back(&entry);
    for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
  }
  for (unsigned i = 0; i < helpers; ++i) offered_.notify_one();
  work.take_part();
  // Helpers that have not come by now find nothing left to do, so nobody waits for them.
  std::unique_lock lock(mutex_);
  std::erase(entries_, &entry);
  left_.wait(lock, [&entry] { return entry.present == 0; });
}

void Helpers::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    offered_.wait(lock, [this] { return !entries_.empty(); });
    Entry& entry = *entries_.front();
    if (--entry.wanted == 0) entries_.pop_front();
    ++entry.present;
    lock.unlock();
    entry.work->take_part();
    lock.lock();
    if (--entry.present == 0) left_.notify_all();
  }
}

}  // namespace softmetal::exec
