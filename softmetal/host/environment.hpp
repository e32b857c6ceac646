// Settings that softmetal reads from the environment, and the version numbers they are written
// with.
#pragma once

#include <compare>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>

namespace softmetal {

inline std::string environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

// A setting that is a number; the program ends with a line that names the variable otherwise.
std::uint64_t environment_number(const char* name, std::uint64_t fallback);
// A setting that is one of a few words, the first of them by default; ends the program likewise.
std::string environment_choice(const char* name, std::initializer_list<const char*> words);

// A version of macOS; {0, 0} is "always there".
struct OsVersion {
  int major = 0;
  int minor = 0;
  auto operator<=>(const OsVersion&) const = default;
};

// The version that softmetal plays: SOFTMETAL_OS, for example "14.0"; the newest one by default.
OsVersion os_version();

}  // namespace softmetal
