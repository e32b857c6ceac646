#include "shared_context.hpp"

#include <map>
#include <mutex>

#include "openmp.hpp"

namespace ingot_python {
namespace {

std::mutex mutex;
std::int32_t current = 0;  ///< number of threads that was asked for

/// One for each number of threads that was ever asked for: plans may still belong to an earlier.
ingot_status context_of(std::int32_t num_threads, ingot_context** context) {
  static auto* const made = new std::map<std::int32_t, ingot_context*>;
  *context = nullptr;
  if (const auto known = made->find(num_threads); known != made->end()) {
    *context = known->second;
    return INGOT_OK;
  }
  ingot_context_options options;
  ingot_context_options_init(&options);
  options.num_threads = num_threads;
  options.parallel_region = &openmp_region;
  options.parallel_region_user = num_threads > 0 ? &as_asked : nullptr;
  const ingot_status status = ingot_context_create(&options, context);
  if (status == INGOT_OK) made->emplace(num_threads, *context);
  return status;
}

}  // namespace

ingot_status shared_context(ingot_context** context) {
  const std::lock_guard lock(mutex);
  return context_of(current, context);
}

ingot_status set_num_threads(std::int32_t num_threads) {
  const std::lock_guard lock(mutex);
  ingot_context* context = nullptr;
  const ingot_status status = context_of(num_threads, &context);
  if (status == INGOT_OK) current = num_threads;
  return status;
}

}  // namespace ingot_python
