// What core asks of a back end. Core never names one; src/backends.cpp lists them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/plan.hpp"
#include "core/problem.hpp"

namespace ingot {

struct PlannedForward {
  const Plan* plan = nullptr;
  const ForwardArgs* args = nullptr;
};

struct PlannedBackward {
  const Plan* plan = nullptr;
  const BackwardArgs* args = nullptr;
};

/// One device of this machine. plan() is pure: it looks at the problem and the device's fixed
/// properties only. forward and backward may be called from several threads at once; their
/// arguments have been validated.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;         ///< "cpu", "cuda:0"
  virtual std::string description() const = 0;  ///< one line for people
  /// Throws Error(unsupported) that says why where the device cannot run the problem.
  virtual Plan plan(const Problem& problem) const = 0;
  /// Text of a just-in-time kernel. Throws Error(unsupported) where kernels are compiled ahead of
  /// time.
  virtual std::string source(const Plan& plan, Pass pass) const;
  virtual void forward(const Plan& plan, const ForwardArgs& args) = 0;
  virtual void backward(const Plan& plan, const BackwardArgs& args) = 0;
  /// Several calls, in any order or at the same time; here one after the other.
  virtual void forward_group(std::span<const PlannedForward> calls);
  virtual void backward_group(std::span<const PlannedBackward> calls);

 protected:
  /// For devices without streams and buffer objects. Throws Error(invalid_argument).
  void require_host_call(const Submission& submission, const PartInputs& parts) const;
};

/// Threads of the program's own, as ingot_parallel_region has them.
struct ParallelRegion {
  void (*run)(void* user, std::int32_t members, void (*body)(void*), void* argument) = nullptr;
  void* user = nullptr;
};

struct ContextOptions {
  int num_threads = 0;  ///< 0: all that this process may use
  ParallelRegion parallel_region;
};

/// Every device of this machine, preferred first. Defined in src/backends.cpp.
std::vector<std::unique_ptr<Backend>> make_backends(const ContextOptions& options);

/// Devices that need not be here: they plan and explain, and refuse to run. Not listed, only found
/// by name, "metal:m1-max". Defined in src/backends.cpp.
std::vector<std::unique_ptr<Backend>> make_plan_only_backends();

/// Why a device that ingot knows is not here: "libcuda.so.1 is not installed". "" for other names.
/// Defined in src/backends.cpp.
std::string absence_reason(std::string_view device);

}  // namespace ingot
