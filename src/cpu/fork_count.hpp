// How often this process is the child of a fork of a process that had ingot loaded: threads and
// locks made before do not live on in the child.
#pragma once

#include <atomic>
#include <memory>

namespace ingot {

/// Throws std::bad_alloc where the system cannot note that forks are to be counted.
unsigned fork_count();

/// What `slot` holds for this process. In the child of a fork the parent's is abandoned, for its
/// locks may be in any state, and `make` makes it anew, once; it has a member `forks`.
template <class T, class F>
T& of_this_process(std::atomic<T*>& slot, F&& make) {
  T* found = slot.load();
  if (found != nullptr && found->forks == fork_count()) return *found;
  std::unique_ptr<T> fresh = make();
  return slot.compare_exchange_strong(found, fresh.get()) ? *fresh.release() : *found;
}

}  // namespace ingot
