// NSProcessInfo, and the string constants that metal-cpp looks up by name.
#include <unistd.h>

#include <ctime>
#include <thread>

#include "foundation.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

struct SystemVersion {
  std::int64_t major;
  std::int64_t minor;
  std::int64_t patch;
};

class ProcessInfo : public Object {
 public:
  SystemVersion version() const { return {os_version().major, os_version().minor, 0}; }
  bool is_at_least(SystemVersion wanted) const {
    return OsVersion{static_cast<int>(wanted.major), static_cast<int>(wanted.minor)} <=
           os_version();
  }
  Ref<String> version_string() const {
    return make_string(text("Version ", os_version().major, ".", os_version().minor));
  }
  std::uint64_t processors() const { return std::thread::hardware_concurrency(); }
  std::uint64_t physical_memory() const {
    return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
           static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  }
  double uptime() const {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }
  std::int32_t process_identifier() const { return getpid(); }
  Ref<String> process_name() const { return make_string(program_invocation_short_name); }
  bool no() const { return false; }
};

ProcessInfo* process_info() {
  static ProcessInfo* const info = [] {
    ProcessInfo* made = make<ProcessInfo>().detach();
    made->immortal = true;
    return made;
  }();
  return info;
}

}  // namespace

void define_foundation_system() {
  Definition<ProcessInfo>("NSProcessInfo", class_of<Object>)
      .class_method<&process_info>("processInfo")
      .method<&ProcessInfo::version>("operatingSystemVersion")
      .method<&ProcessInfo::version_string>("operatingSystemVersionString")
      .method<&ProcessInfo::is_at_least>("isOperatingSystemAtLeastVersion:")
      .method<&ProcessInfo::processors>("processorCount")
      .method<&ProcessInfo::processors>("activeProcessorCount")
      .method<&ProcessInfo::physical_memory>("physicalMemory")
      .method<&ProcessInfo::uptime>("systemUptime")
      .method<&ProcessInfo::process_identifier>("processIdentifier")
      .method<&ProcessInfo::process_name>("processName")
      .method<&ProcessInfo::no>("isLowPowerModeEnabled")
      .method<&ProcessInfo::no>("isiOSAppOnMac")
      .method<&ProcessInfo::no>("isMacCatalystApp");
}

}  // namespace softmetal
