// The end of one call on the GPU.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "metal/device/buffer_pool.hpp"
#include "metal/device/view.hpp"

namespace ingot::metal {

/// Holds what a call needs until the GPU is done with it, then copies results to host memory and
/// keeps what went wrong.
class Completion {
 public:
  explicit Completion(std::string device_name) : device_name_(std::move(device_name)) {}

  // ---- before the call is committed ----
  MTL::Buffer* keep(BufferPool::Lease lease);
  MTL::Buffer* keep(NS::SharedPtr<MTL::Buffer> buffer);
  void copy_back(const View& view, std::byte* to, const std::byte* from);

  /// Called once, when the command buffer has ended.
  void finish(MTL::CommandBuffer* commands);

  bool done();
  void wait();  ///< throws what went wrong
  double seconds();

 private:
  struct CopyBack {
    View view;
    std::byte* to;
    const std::byte* from;
  };

  const std::string device_name_;
  std::vector<BufferPool::Lease> leases_;
  std::vector<NS::SharedPtr<MTL::Buffer>> buffers_;
  std::vector<CopyBack> copies_;

  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  double seconds_ = 0;
  std::optional<Error> error_;
};

}  // namespace ingot::metal
