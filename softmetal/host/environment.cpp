#include "environment.hpp"

#include <charconv>
#include <cstdio>

namespace softmetal {
namespace {

OsVersion parse(const std::string& value) {
  OsVersion version;
  if (std::sscanf(value.c_str(), "%d.%d", &version.major, &version.minor) < 1) {
    std::fprintf(stderr, "softmetal: SOFTMETAL_OS must be like \"14.0\", not \"%s\"\n",
                 value.c_str());
    std::abort();
  }
  return version;
}

}  // namespace

std::uint64_t environment_number(const char* name, std::uint64_t fallback) {
  const std::string value = environment(name, "");
  std::uint64_t number = fallback;
  const auto read = std::from_chars(value.data(), value.data() + value.size(), number);
  if (!value.empty() && (read.ec != std::errc() || *read.ptr != '\0')) {
    std::fprintf(stderr, "softmetal: %s must be a number, not \"%s\"\n", name, value.c_str());
    std::abort();
  }
  return number;
}

std::string environment_choice(const char* name, std::initializer_list<const char*> words) {
  std::string value = environment(name, *words.begin());
  std::string all;
  for (const char* word : words) {
    if (value == word) {
      return value;
    }
    all += all.empty() ? word : std::string(" or ") + word;
  }
  std::fprintf(stderr, "softmetal: %s must be %s, not \"%s\"\n", name, all.c_str(), value.c_str());
  std::abort();
}

// Read every time: a test plays several systems in one process.
OsVersion os_version() { return parse(environment("SOFTMETAL_OS", "26.0")); }

}  // namespace softmetal
