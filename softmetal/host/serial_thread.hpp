// Work on softmetal's own threads.
#pragma once

#include <chrono>

#include <functional>
#include <memory>

namespace softmetal {

// Runs `task` on a thread of its own.
void run_in_background(std::function<void()> task);
// Waits until no task of softmetal's threads is left, at most for `limit`.
void wait_for_background(std::chrono::milliseconds limit);

// A thread that runs tasks one after the other.
class SerialThread {
 public:
  SerialThread();
  ~SerialThread();  // the tasks posted so far still run
  SerialThread(const SerialThread&) = delete;
  SerialThread& operator=(const SerialThread&) = delete;
  void post(std::function<void()> task);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace softmetal
