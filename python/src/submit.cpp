#include "submit.hpp"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "errors.hpp"
#include "interpreter.hpp"
#include "openmp.hpp"

namespace ingot_python {
namespace {

constexpr std::chrono::milliseconds between_looks{20};  ///< at the signals

/// A call on a thread of its own.
class Worker {
 public:
  explicit Worker(const std::function<ingot_status()>& call)
      : thread_([this, &call, threads = openmp_threads()] {
          const OpenmpThreads same(threads);
          end(call());
        }) {}

  bool wait(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, time, [&] { return done_; });
  }

  /// What the call fails with is thrown.
  void finish() {
    join();
    if (status_ != INGOT_OK) raise(status_, text_);
  }

  void join() { thread_.join(); }

 private:
  void end(ingot_status status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
    try {
      if (status != INGOT_OK) text_ = ingot_last_error();
    } catch (const std::bad_alloc&) {
      text_.clear();
    }
    done_ = true;
    ended_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  ingot_status status_ = INGOT_OK;
  std::string text_;
  std::thread thread_;  // the last member: it uses the others
};

/// False where the system has no thread to give.
bool run_interruptible(std::int32_t& cancel, const std::function<ingot_status()>& call) {
  std::optional<Worker> worker;
  try {
    worker.emplace(call);
  } catch (const std::system_error&) {
    return false;
  }
  bool interrupted = false, done = false;
  while (!done) {
    without_lock([&] { done = worker->wait(between_looks); });
    if (!done && !interrupted && PyErr_CheckSignals() != 0) {
      interrupted = true;
      __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
    }
  }
  if (!interrupted) {
    worker->finish();
    return true;
  }
  worker->join();
  throw nanobind::python_error();
}

}  // namespace

double seconds_of(const ingot_problem& p, bool reference) {
  const double multiply_adds = static_cast<double>(p.batch) * static_cast<double>(p.num_heads) *
                               static_cast<double>(p.seqlen_q) * static_cast<double>(p.seqlen_k) *
                               static_cast<double>(p.head_dim + p.head_dim_v);
  return multiply_adds / (reference ? 3e8 : 2e10);
}

void submit(bool is_long, std::int32_t& cancel, const std::function<ingot_status()>& call) {
  if (is_long && run_interruptible(cancel, call)) return;
  ingot_status status = INGOT_OK;
  without_lock([&] { status = call(); });
  check(status);
}

}  // namespace ingot_python
