#include "serial_thread.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace softmetal {
namespace {

// Tasks given to any thread and not yet done with, what they hold included.
struct Tasks {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t count = 0;
  void add() {
    const std::lock_guard lock(mutex);
    ++count;
  }
  void remove() {
    const std::lock_guard lock(mutex);
    --count;
    changed.notify_all();
  }
};

Tasks& tasks_anywhere() {
  static Tasks* const instance = new Tasks;  // outlives the threads
  return *instance;
}

}  // namespace

void run_in_background(std::function<void()> task) {
  tasks_anywhere().add();
  std::thread([task = std::move(task)]() mutable {
    task();
    task = nullptr;
    tasks_anywhere().remove();
  }).detach();
}

void wait_for_background(std::chrono::milliseconds limit) {
  Tasks& tasks = tasks_anywhere();
  std::unique_lock lock(tasks.mutex);
  tasks.changed.wait_for(lock, limit, [&tasks] { return tasks.count == 0; });
}

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
      tasks_anywhere().remove();
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
  tasks_anywhere().add();
  const std::lock_guard lock(state_->mutex);
  state_->tasks.push_back(std::move(task));
  if (!state_->started) {
    state_->started = true;
    std::thread([state = state_] { state->run(); }).detach();
  }
  state_->changed.notify_all();
}

}  // namespace softmetal
