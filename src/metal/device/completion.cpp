#include "metal/device/completion.hpp"

namespace ingot::metal {
namespace {

std::optional<Error> error_of(MTL::CommandBuffer* commands, const std::string& device) {
  if (commands->status() == MTL::CommandBufferStatusCompleted) return std::nullopt;
  NS::Error* error = commands->error();
  const bool memory = error != nullptr && error->code() == MTL::CommandBufferErrorOutOfMemory;
  const std::string what = memory ? "out of memory on the device" : "the command buffer failed";
  return Error(memory ? Code::out_of_memory : Code::device_error,
               "device " + device + ": " + what + ": " + text_of(error));
}

}  // namespace

MTL::Buffer* Completion::keep(BufferPool::Lease lease) {
  return leases_.emplace_back(std::move(lease)).buffer();
}

MTL::Buffer* Completion::keep(NS::SharedPtr<MTL::Buffer> buffer) {
  return buffers_.emplace_back(std::move(buffer)).get();
}

void Completion::copy_back(const View& view, std::byte* to, const std::byte* from) {
  copies_.push_back({view, to, from});
}

void Completion::finish(MTL::CommandBuffer* commands) {
  const AutoreleaseScope scope;
  std::optional<Error> error = error_of(commands, device_name_);
  if (!error) {
    for (const CopyBack& copy : copies_) copy_elements(copy.view, copy.to, copy.from);
  }
  const double seconds = commands->GPUEndTime() - commands->GPUStartTime();
  leases_.clear();
  buffers_.clear();
  {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    seconds_ = seconds;
    done_ = true;
  }
  ended_.notify_all();
}

bool Completion::done() {
  const std::lock_guard lock(mutex_);
  return done_;
}

void Completion::wait() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return done_; });
  if (error_) throw Error(*error_);
}

double Completion::seconds() {
  const std::lock_guard lock(mutex_);
  return seconds_;
}

}  // namespace ingot::metal
