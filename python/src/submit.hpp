// Runs calls without the interpreter's lock, and lets Ctrl-C end the long ones.
#pragma once

#include <ingot/ingot.h>

#include <functional>
#include <utility>
#include <vector>

#include "plans.hpp"

namespace ingot_python {

/// A pass that is ready: its views must outlive it, for args may point into them.
template <class Args>
struct Prepared {
  double seconds = 0;  ///< about, on one slow core; 0 for calls that are only queued
  PlanHandle plan;
  Args args;
};

/// About how long a pass of this problem takes on one slow core.
double seconds_of(const ingot_problem& problem, bool reference);

/// Calls `call`, which reads `cancel`, without the interpreter's lock; throws what it fails with.
/// With the lock, and with is_long on a thread of its own, so that this one can look for signals.
void submit(bool is_long, std::int32_t& cancel, const std::function<ingot_status()>& call);

constexpr double long_call = 0.02;  ///< seconds; a thread costs a thousandth of it

/// pass: ingot_forward or ingot_backward.
template <class Args, class F>
void run(Prepared<Args> call, F&& pass) {
  std::int32_t cancel = 0;
  const bool is_long = call.seconds > long_call;
  if (is_long) call.args.submission.cancel = &cancel;
  submit(is_long, cancel, [&] { return pass(call.plan.get(), &call.args); });
}

/// group: ingot_forward_group or ingot_backward_group.
template <class Args, class F>
void run_group(std::vector<Prepared<Args>> calls, F&& group) {
  std::int32_t cancel = 0;
  double seconds = 0;
  std::vector<const ingot_plan*> plans;
  std::vector<const Args*> args;
  for (const Prepared<Args>& call : calls) {
    seconds += call.seconds;
    plans.push_back(call.plan.get());
    args.push_back(&call.args);
  }
  const bool is_long = seconds > long_call;
  if (is_long) {
    for (Prepared<Args>& call : calls) call.args.submission.cancel = &cancel;
  }
  const auto count = static_cast<std::int32_t>(calls.size());
  submit(is_long, cancel, [&] { return group(plans.data(), args.data(), count); });
}

}  // namespace ingot_python
