// Findings: what softmetal has to say about the program that runs on it.
#pragma once

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>

namespace softmetal {

enum class Severity { warning = 1, error = 2 };

// Where inside a kernel a finding was made.
struct KernelSite {
  std::string kernel;
  std::uint32_t line = 0;
  std::array<std::uint32_t, 3> thread{};
  int buffer = -1;
  std::uint64_t offset = 0;
};

// Concatenates anything that can be written to a stream.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// Hands the finding to the handler, or prints it and (for an error, unless
// SOFTMETAL_FINDINGS=report) ends the program. Returns when the program is to go on.
void report(Severity severity, std::string_view rule, const std::string& what,
            const KernelSite& site = {});

inline void error(std::string_view rule, const std::string& what) {
  report(Severity::error, rule, what);
}
inline void warning(std::string_view rule, const std::string& what) {
  report(Severity::warning, rule, what);
}

}  // namespace softmetal
