#include "report.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include <softmetal/softmetal.h>

#include "environment.hpp"

namespace softmetal {
namespace {

constexpr int exit_status_of_warnings = 86;

struct Reports {
  std::recursive_mutex mutex;
  softmetal_finding_handler handler = nullptr;
  void* context = nullptr;
  std::map<std::string, std::size_t, std::less<>> counts;
  bool printed_warning = false;
};

Reports& reports() {
  static Reports* const instance = new Reports;  // outlives every destructor that may report
  return *instance;
}

bool stops() { return environment_choice("SOFTMETAL_FINDINGS", {"stop", "report"}) == "stop"; }

// SOFTMETAL_IGNORE=rule,rule: findings that the program is known to cause.
bool ignored(std::string_view rule) {
  std::istringstream list(environment("SOFTMETAL_IGNORE", ""));
  for (std::string name; std::getline(list, name, ',');) {
    if (name == rule) {
      return true;
    }
  }
  return false;
}

void print(Severity severity, std::string_view rule, const std::string& what) {
  const char* word = severity == Severity::error ? "error" : "warning";
  std::fprintf(stderr, "softmetal: %s [%.*s] %s\n", word, static_cast<int>(rule.size()),
               rule.data(), what.c_str());
  std::fflush(stderr);
}

// Runs behind the destructors of the program, since this library is initialised before it.
void leave_with_warnings() {
  const std::lock_guard lock(reports().mutex);
  if (reports().printed_warning) {
    std::fflush(nullptr);
    std::_Exit(exit_status_of_warnings);
  }
}

void print_and_decide(Severity severity, std::string_view rule, const std::string& what) {
  print(severity, rule, what);
  if (!stops()) {
    return;
  }
  if (severity == Severity::error) {
    std::abort();
  }
  reports().printed_warning = true;
}

}  // namespace

void report(Severity severity, std::string_view rule, const std::string& what,
            const KernelSite& site) {
  if (ignored(rule)) {
    return;
  }
  auto& all = reports();
  const std::lock_guard lock(all.mutex);
  const std::string name(rule);
  ++all.counts[name];
  if (all.handler == nullptr) {
    print_and_decide(severity, rule, what);
    return;
  }
  const softmetal_finding finding{sizeof(softmetal_finding),
                                  static_cast<int>(severity),
                                  name.c_str(),
                                  what.c_str(),
                                  site.kernel.c_str(),
                                  site.line,
                                  {site.thread[0], site.thread[1], site.thread[2]},
                                  site.buffer,
                                  site.offset};
  all.handler(&finding, all.context);
}

void arrange_exit_status() { std::atexit(leave_with_warnings); }

}  // namespace softmetal

void softmetal_set_finding_handler(softmetal_finding_handler handler, void* context) {
  auto& all = softmetal::reports();
  const std::lock_guard lock(all.mutex);
  all.handler = handler;
  all.context = context;
}

size_t softmetal_finding_count(const char* rule) {
  auto& all = softmetal::reports();
  const std::lock_guard lock(all.mutex);
  if (rule != nullptr) {
    const auto found = all.counts.find(std::string_view(rule));
    return found == all.counts.end() ? 0 : found->second;
  }
  size_t sum = 0;
  for (const auto& [name, count] : all.counts) {
    sum += count;
  }
  return sum;
}
