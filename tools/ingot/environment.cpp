#include "environment.hpp"

#include <ingot/ingot.h>

#include <ctime>
#include <fstream>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ingot::cli {

std::string cpu_model() {
#if defined(__APPLE__)
  char name[128] = "unknown";
  std::size_t bytes = sizeof name;
  ::sysctlbyname("machdep.cpu.brand_string", name, &bytes, nullptr, 0);
  return name;
#else
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
#endif
}

std::string utc_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

nlohmann::json environment(int threads) {
  return {{"cpu", cpu_model()},
          {"threads", threads},
          {"version", ingot_version()},
          {"date", utc_date()},
          {"compiler", __VERSION__}};
}

}  // namespace ingot::cli
