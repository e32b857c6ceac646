// A thread that runs tasks one after the other.
#pragma once

#include <functional>
#include <memory>

namespace softmetal {

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
