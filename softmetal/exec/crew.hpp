// The threads that run threadgroups: the one that dispatches and helpers that live on.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

namespace softmetal::exec {

/// Work that several threads may do parts of at once.
class SharedWork {
 public:
  virtual ~SharedWork() = default;
  /// Does parts until none is left. Called by several threads.
  virtual void take_part() = 0;
};

/// Threads that are started on first need and wait for work ever after.
class Helpers {
 public:
  static Helpers& instance();

  /// Runs `work` on the calling thread and on up to `helpers` others; returns when all have left
  /// it.
  void run(SharedWork& work, unsigned helpers);

 private:
  struct Entry {
    SharedWork* work;
    unsigned wanted;   // helpers that may still join
    unsigned present;  // helpers inside
  };
  void serve();

  std::mutex mutex_;
  std::condition_variable offered_, left_;
  std::deque<Entry*> entries_;
  unsigned threads_ = 0;
};

}  // namespace softmetal::exec
