#include "metal/device/buffer_pool.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"

namespace ingot::metal {
namespace {

constexpr std::size_t granularity = 256;

std::size_t size_class(std::size_t bytes) {
  return std::max<std::size_t>(1, (bytes + granularity - 1) / granularity) * granularity;
}

}  // namespace

NS::SharedPtr<MTL::Buffer> BufferPool::make(std::size_t bytes, const char* purpose) const {
  auto buffer =
      NS::TransferPtr(device_->newBuffer(size_class(bytes), MTL::ResourceStorageModeShared));
  if (!buffer) {
    throw Error(Code::out_of_memory, std::string("out of memory on the device: ") +
                                         std::to_string(bytes) + " bytes for " + purpose);
  }
  return buffer;
}

BufferPool::Lease BufferPool::take(std::size_t bytes, const char* purpose) {
  const std::size_t wanted = size_class(bytes);
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(
        kept_, [wanted](const auto& buffer) { return buffer->length() == wanted; });
    if (found != kept_.end()) {
      Lease lease(shared_from_this(), std::move(*found));
      kept_.erase(found);
      kept_bytes_ -= wanted;
      return lease;
    }
  }
  return {shared_from_this(), make(bytes, purpose)};
}

void BufferPool::give_back(NS::SharedPtr<MTL::Buffer> buffer) {
  const std::lock_guard lock(mutex_);
  kept_bytes_ += buffer->length();
  kept_.push_front(std::move(buffer));
  while (kept_bytes_ > most_kept_) {
    kept_bytes_ -= kept_.back()->length();
    kept_.pop_back();
  }
}

}  // namespace ingot::metal
