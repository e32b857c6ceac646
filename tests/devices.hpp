// The context that tests share, and the devices it has.
#pragma once

#include <ingot/ingot.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ingot::conformance {

struct ContextDeleter {
  void operator()(ingot_context* context) const { ingot_context_destroy(context); }
};
using ContextHandle = std::unique_ptr<ingot_context, ContextDeleter>;

/// num_threads 0: all of this process.
inline ContextHandle make_context(int num_threads) {
  ingot_context_options options;
  ingot_context_options_init(&options);
  options.num_threads = num_threads;
  ingot_context* context = nullptr;
  if (ingot_context_create(&options, &context) != INGOT_OK)
    throw std::runtime_error(ingot_last_error());
  return ContextHandle(context);
}

inline ingot_context* shared_context() {
  static const ContextHandle context = make_context(0);
  return context.get();
}

inline std::vector<std::string> device_names(const ingot_context* context) {
  std::int32_t count = 0;
  if (ingot_device_count(context, &count) != INGOT_OK) throw std::runtime_error(ingot_last_error());
  std::vector<std::string> names;
  for (std::int32_t i = 0; i < count; ++i) {
    ingot_device_info info;
    ingot_device_info_init(&info);
    if (ingot_device_info_get(context, i, &info) != INGOT_OK)
      throw std::runtime_error(ingot_last_error());
    names.emplace_back(info.name);
  }
  return names;
}

}  // namespace ingot::conformance
