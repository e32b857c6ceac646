// Numbers in the GPU's memory by which the blocks of one launch find out who ends last.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/cuda_device.hpp"

namespace ingot::cuda {

/// Sets of numbers that are 0 whenever no kernel of their calls runs: kernels leave them as they
/// found them. Calls of one stream share a set, since they run one after the other. A captured call
/// has one of its own for good, since its graph may run beside anything. Safe to use from several
/// threads.
class Tickets {
 public:
  explicit Tickets(Device& device) : device_(device) {}

  /// `count` numbers for a call on `stream`; null where there are too many streams or captured
  /// calls for all of them to have some.
  unsigned* take(StreamHandle stream, std::int64_t count);

 private:
  struct Set {
    unsigned* first = nullptr;
    std::int64_t count = 0;
  };

  Set make(std::int64_t count);

  Device& device_;
  std::mutex mutex_;
  std::map<std::uint64_t, Set> of_streams_;  ///< by the stream's number, which is never given twice
  std::vector<std::unique_ptr<Device::StreamMemory>> memory_;
  unsigned* next_ = nullptr;
  std::int64_t left_ = 0;  ///< numbers from next_ on
};

}  // namespace ingot::cuda
