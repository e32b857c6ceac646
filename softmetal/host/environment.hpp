// Settings that softmetal reads from the environment, and the version numbers they are written
// with.
#pragma once

#include <compare>
#include <cstdlib>
#include <string>

namespace softmetal {

inline std::string environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

// A version of macOS; {0, 0} is "always there".
struct OsVersion {
  int major = 0;
  int minor = 0;
  auto operator<=>(const OsVersion&) const = default;
};

// The version that softmetal plays: SOFTMETAL_OS, for example "14.0"; the newest one by default.
OsVersion os_version();

}  // namespace softmetal
