// Variables of the environment.
#pragma once

#include <cstdlib>
#include <string>
#if defined(__APPLE__)
#include <unistd.h>
#endif

namespace ingot {

/// The variable's value, "" if it is not set. A program that runs with more rights than its caller
/// (set-user-id and the like) sees none: whoever starts it could name libraries to be loaded.
inline std::string environment(const char* name) {
#if defined(__APPLE__)
  const char* value = ::issetugid() != 0 ? nullptr : std::getenv(name);
#else
  const char* value = ::secure_getenv(name);
#endif
  return value == nullptr ? "" : value;
}

}  // namespace ingot
