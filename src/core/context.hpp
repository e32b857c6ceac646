// Context: the devices of one library user, and the two calls that run a plan on one of them.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/backend.hpp"

namespace ingot {

class Context {
 public:
  explicit Context(const ContextOptions& options);

  const std::vector<std::unique_ptr<Backend>>& devices() const { return devices_; }

  /// "" and "auto": the first. Devices that only plan are found too. Throws Error(invalid_argument)
  /// with the names there are.
  Backend& device(std::string_view name) const;

 private:
  std::vector<std::unique_ptr<Backend>> devices_, plan_only_;
};

/// A plan together with the device it is for.
struct BoundPlan {
  Backend* device = nullptr;
  Plan plan;
};

BoundPlan make_plan(const Context& context, std::string_view device, const Problem& problem);
void forward(const BoundPlan& bound, const ForwardArgs& args);
void backward(const BoundPlan& bound, const BackwardArgs& args);

/// All are validated before the first runs; they must be of one device.
void forward_group(std::span<const BoundPlan* const> plans, std::span<const ForwardArgs> args);
void backward_group(std::span<const BoundPlan* const> plans, std::span<const BackwardArgs> args);

}  // namespace ingot
