#include "interpreter.hpp"

#include <chrono>
#include <thread>

namespace ingot_python {

void sleep_forever() noexcept {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

}  // namespace ingot_python
