#include "inject.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string_view>

#include <softmetal/softmetal.h>

#include "environment.hpp"

namespace softmetal {
namespace {

constexpr std::array<std::string_view, 6> failure_names = {"out-of-memory",     "compile-failure",
                                                           "pipeline-failure",  "device-error",
                                                           "gpu-out-of-memory", "timeout"};

struct Plan {
  unsigned skip = 0;
  unsigned count = 0;
};

struct Plans {
  std::mutex mutex;
  std::array<Plan, failure_names.size()> plans;
};

bool set_plan(Plans& plans, std::string_view what, Plan plan) {
  for (std::size_t i = 0; i < failure_names.size(); ++i) {
    if (failure_names[i] == what) {
      plans.plans[i] = plan;
      return true;
    }
  }
  return false;
}

// "device-error:SKIP:COUNT,..."
void read_environment(Plans& plans) {
  std::istringstream list(environment("SOFTMETAL_INJECT", ""));
  for (std::string entry; std::getline(list, entry, ',');) {
    char name[32];
    Plan plan;
    if (std::sscanf(entry.c_str(), "%31[^:]:%u:%u", name, &plan.skip, &plan.count) != 3 ||
        !set_plan(plans, name, plan)) {
      std::fprintf(stderr, "softmetal: SOFTMETAL_INJECT must be NAME:SKIP:COUNT,..., not \"%s\"\n",
                   entry.c_str());
      std::abort();
    }
  }
}

Plans& plans() {
  static Plans* const instance = [] {
    auto* made = new Plans;
    read_environment(*made);
    return made;
  }();
  return *instance;
}

}  // namespace

bool fails_now(Failure failure) {
  auto& all = plans();
  const std::lock_guard lock(all.mutex);
  Plan& plan = all.plans[static_cast<std::size_t>(failure)];
  if (plan.skip > 0) {
    --plan.skip;
    return false;
  }
  if (plan.count == 0) {
    return false;
  }
  --plan.count;
  return true;
}

}  // namespace softmetal

int softmetal_inject(const char* what, unsigned skip, unsigned count) {
  auto& all = softmetal::plans();
  const std::lock_guard lock(all.mutex);
  return softmetal::set_plan(all, what, {skip, count}) ? 0 : -1;
}
