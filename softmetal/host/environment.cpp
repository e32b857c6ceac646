#include "environment.hpp"

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

// Read every time: a test plays several systems in one process.
OsVersion os_version() { return parse(environment("SOFTMETAL_OS", "26.0")); }

}  // namespace softmetal
