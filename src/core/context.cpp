#include "core/context.hpp"

#include "core/error.hpp"

namespace ingot {

std::string Backend::source(const Plan&, Pass) const {
  throw Error(Code::unsupported,
              "unsupported: source: kernels of device " + name() + " are compiled ahead of time");
}

void Backend::require_host_call(const Submission& submission) const {
  const auto refuse = [&](const char* argument, const char* rule) {
    throw Error(Code::invalid_argument, std::string("submission.") + argument + ": must be " +
                                            rule + ", device " + name() +
                                            " works on host memory and has no queue");
  };
  if (submission.stream != nullptr) refuse("stream", "NULL");
  if (submission.encoder != nullptr) refuse("encoder", "NULL");
  if (submission.memory != Memory::address) refuse("memory", "INGOT_MEMORY_ADDRESS");
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
  bound.device->forward(bound.plan, args);
}

void backward(const BoundPlan& bound, const BackwardArgs& args) {
  validate(bound.plan.problem, args, bound.plan.backward.workspace_bytes);
  bound.device->backward(bound.plan, args);
}

}  // namespace ingot
