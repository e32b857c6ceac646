// Metal buffers that are used again: workspace, and copies of host memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "metal/device/metal_cpp.hpp"

namespace ingot::metal {

/// Shared-memory buffers by size. Those nobody holds are kept for the next taker of that size;
/// above `most_kept` bytes the ones given back longest ago go. Safe to use from several threads.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  BufferPool(NS::SharedPtr<MTL::Device> device, std::size_t most_kept)
      : device_(std::move(device)), most_kept_(most_kept) {}

  /// One buffer, given back when this ends.
  class Lease {
   public:
    Lease() = default;
    Lease(std::shared_ptr<BufferPool> pool, NS::SharedPtr<MTL::Buffer> buffer)
        : pool_(std::move(pool)), buffer_(std::move(buffer)) {}
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&& other) = delete;
    ~Lease() {
      if (pool_) pool_->give_back(std::move(buffer_));
    }

    MTL::Buffer* buffer() const { return buffer_.get(); }

   private:
    std::shared_ptr<BufferPool> pool_;
    NS::SharedPtr<MTL::Buffer> buffer_;
  };

  /// At least `bytes`, and hardly more, so that an access outside is one outside of the buffer.
  /// Throws Error(out_of_memory) that names `purpose`.
  Lease take(std::size_t bytes, const char* purpose);

  /// A buffer that the pool never sees again.
  NS::SharedPtr<MTL::Buffer> make(std::size_t bytes, const char* purpose) const;

 private:
  void give_back(NS::SharedPtr<MTL::Buffer> buffer);

  const NS::SharedPtr<MTL::Device> device_;
  const std::size_t most_kept_;
  std::mutex mutex_;
  std::list<NS::SharedPtr<MTL::Buffer>> kept_;  ///< last given back first
  std::size_t kept_bytes_ = 0;
};

}  // namespace ingot::metal
