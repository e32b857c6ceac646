#include "serial_thread.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace softmetal {

// Shared with the thread, which is detached: its owner may be destroyed by one of its own tasks.
struct SerialThread::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> tasks;
  bool started = false;
  bool closing = false;

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return closing || !tasks.empty(); });
      if (tasks.empty()) {
        return;
      }
      std::function<void()> task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      task();
      task = nullptr;  // what it holds may own this very thread
      lock.lock();
    }
  }
};

SerialThread::SerialThread() : state_(std::make_shared<State>()) {}

SerialThread::~SerialThread() {
  const std::lock_guard lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
}

void SerialThread::post(std::function<void()> task) {
  const std::lock_guard lock(state_->mutex);
  state_->tasks.push_back(std::move(task));
  if (!state_->started) {
    state_->started = true;
    std::thread([state = state_] { state->run(); }).detach();
  }
  state_->changed.notify_all();
}

}  // namespace softmetal
