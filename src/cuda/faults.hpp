// Waits of kernels that ran out: where kernels tell of them, and how a call says so.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "cuda/driver.hpp"
#include "cuda/kernels/fault_params.h"

namespace ingot::cuda {

class Device;

/// The fault words of one device. Safe to use from several threads.
class Faults {
 public:
  explicit Faults(Device& device) : device_(device) {}
  ~Faults();
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;

  /// What kernels take along. Made at the first call.
  FaultWords words();

  /// Throws Error(device_error) if a kernel has told of a fault, once: the words are 0 afterwards.
  /// Costs a read of host memory.
  void report();

 private:
  void make();
  void clear() const;

  Device& device_;
  std::mutex mutex_;
  std::shared_ptr<void> seen_memory_;
  FaultWords words_{};
  std::atomic<bool> made_ = false;
};

}  // namespace ingot::cuda
