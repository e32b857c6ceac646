#include "core/context.hpp"

#include <string>

#include "core/error.hpp"

namespace ingot {

std::string Backend::source(const Plan&, Pass) const {
  throw Error(Code::unsupported,
              "unsupported: source: kernels of device " + name() + " are compiled ahead of time");
}

void Backend::forward_group(std::span<const PlannedForward> calls) {
  for (const PlannedForward& call : calls) forward(*call.plan, *call.args);
}

void Backend::backward_group(std::span<const PlannedBackward> calls) {
  for (const PlannedBackward& call : calls) backward(*call.plan, *call.args);
}

void Backend::require_host_call(const Submission& submission, const PartInputs& parts) const {
  const auto refuse = [&](const char* argument, const char* rule) {
    throw Error(Code::invalid_argument, std::string("submission.") + argument + ": must be " +
                                            rule + ", device " + name() +
                                            " works on host memory and has no queue");
  };
  if (submission.stream != nullptr) refuse("stream", "NULL");
  if (submission.encoder != nullptr) refuse("encoder", "NULL");
  if (submission.memory != Memory::address) refuse("memory", "INGOT_MEMORY_ADDRESS");
  if (parts.dropout_state != nullptr) {
    throw Error(Code::invalid_argument, "dropout_state: must be NULL, device " + name() +
                                            " takes dropout_seed and dropout_offset");
  }
}

Context::Context(const ContextOptions& options)
    : devices_(make_backends(options)), plan_only_(make_plan_only_backends()) {}

Backend& Context::device(std::string_view name) const {
  if (name.empty() || name == "auto") return *devices_.front();
  std::string names = "auto";
  for (const auto& device : devices_) {
    const std::string& known = device->name();
    if (known == name || known == std::string(name) + ":0") return *device;
    names += ", " + device->name();
  }
  for (const auto& device : plan_only_) {
    if (device->name() == name) return *device;
  }
  const std::string reason = absence_reason(name);
  throw Error(Code::invalid_argument, "device: must be one of " + names + " on this machine, got " +
                                          std::string(name) + (reason.empty() ? "" : ": ") +
                                          reason);
}

BoundPlan make_plan(const Context& context, std::string_view device, const Problem& problem) {
  validate(problem);
  Backend& backend = context.device(device);
  BoundPlan bound{&backend, backend.plan(problem)};
  bound.plan.problem = problem;
  bound.plan.device = backend.name();
  return bound;
}

void forward(const BoundPlan& bound, const ForwardArgs& args) {
  validate(bound.plan.problem, args, bound.plan.forward.workspace_bytes);
  bound.device->forward(bound.plan, settled(bound.plan.problem, args));
}

void backward(const BoundPlan& bound, const BackwardArgs& args) {
  validate(bound.plan.problem, args, bound.plan.backward.workspace_bytes);
  bound.device->backward(bound.plan, settled(bound.plan.problem, args));
}

namespace {

/// Runs `group` of the device that all plans are of, once every call has been validated.
template <class Planned, class Args>
void run_group(std::span<const BoundPlan* const> plans, std::span<const Args> args,
               const PassPlan Plan::* pass, void (Backend::*group)(std::span<const Planned>)) {
  if (plans.empty()) return;
  std::vector<Planned> calls;
  std::vector<Args> settled_args;
  settled_args.reserve(plans.size());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const BoundPlan& bound = *plans[i];
    if (bound.device != plans[0]->device) {
      throw Error(Code::invalid_argument, "plans: must be of one device, plan 0 is of " +
                                              plans[0]->plan.device + ", plan " +
                                              std::to_string(i) + " of " + bound.plan.device);
    }
    try {
      validate(bound.plan.problem, args[i], (bound.plan.*pass).workspace_bytes);
    } catch (const Error& error) {
      throw Error(error.code(), "args[" + std::to_string(i) + "]." + error.what());
    }
    settled_args.push_back(settled(bound.plan.problem, args[i]));
    calls.push_back({&bound.plan, &settled_args.back()});
  }
  (plans[0]->device->*group)(calls);
}

}  // namespace

void forward_group(std::span<const BoundPlan* const> plans, std::span<const ForwardArgs> args) {
  run_group<PlannedForward>(plans, args, &Plan::forward, &Backend::forward_group);
}

void backward_group(std::span<const BoundPlan* const> plans, std::span<const BackwardArgs> args) {
  run_group<PlannedBackward>(plans, args, &Plan::backward, &Backend::backward_group);
}

}  // namespace ingot
