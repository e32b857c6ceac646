#include "shared_context.hpp"

#include <mutex>

namespace ingot_python {

ingot_status shared_context(ingot_context** context) {
  static std::mutex mutex;
  static ingot_context* made = nullptr;
  const std::lock_guard lock(mutex);
  const ingot_status status = made != nullptr ? INGOT_OK : ingot_context_create(nullptr, &made);
  *context = made;
  return status;
}

}  // namespace ingot_python
