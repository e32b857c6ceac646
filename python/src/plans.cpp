#include "plans.hpp"

#include <cstring>
#include <list>

#include "errors.hpp"
#include "shared_context.hpp"

namespace ingot_python {
namespace {

struct PlanDeleter {
  void operator()(ingot_plan* plan) const { ingot_plan_destroy(plan); }
};

struct CachedPlan {
  ingot_context* context;
  std::string device;
  ingot_problem problem;
  PlanHandle plan;
};

}  // namespace

ingot_context* context() {
  ingot_context* handle = nullptr;
  check(shared_context(&handle));
  return handle;
}

PlanHandle plan_for(const std::string& device, const ingot_problem& problem) {
  static auto* const plans = new std::list<CachedPlan>;  // the latest first
  constexpr std::size_t capacity = 64;
  ingot_context* const current = context();
  for (auto entry = plans->begin(); entry != plans->end(); ++entry) {
    if (std::memcmp(&entry->problem, &problem, sizeof problem) == 0 && entry->context == current &&
        entry->device == device) {
      if (entry != plans->begin()) plans->splice(plans->begin(), *plans, entry);
      return plans->front().plan;
    }
  }
  ingot_plan* made = nullptr;
  check(ingot_plan_create(current, device.c_str(), &problem, &made));
  plans->push_front({current, device, problem, PlanHandle(made, PlanDeleter{})});
  if (plans->size() > capacity) plans->pop_back();
  return plans->front().plan;
}

}  // namespace ingot_python
