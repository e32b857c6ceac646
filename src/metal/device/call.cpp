#include "metal/device/call.hpp"

#include "core/error.hpp"

namespace ingot::metal {
namespace {

[[noreturn]] void fail(const std::string& message) { throw Error(Code::invalid_argument, message); }

MTL::CommandBuffer* stream_of(const Submission& submission) {
  return static_cast<MTL::CommandBuffer*>(submission.stream);
}

MTL::ComputeCommandEncoder* encoder_of(const Submission& submission) {
  return static_cast<MTL::ComputeCommandEncoder*>(submission.encoder);
}

class CallEvent final : public Event {
 public:
  CallEvent(std::shared_ptr<Completion> completion, NS::SharedPtr<MTL::CommandBuffer> commands)
      : completion_(std::move(completion)), commands_(std::move(commands)) {}

  bool done() override { return completion_->done(); }

  void wait() override {
    const AutoreleaseScope scope;
    if (commands_->status() < MTL::CommandBufferStatusCommitted) {
      fail("event: submission.stream must be committed before its event is waited for");
    }
    completion_->wait();
  }

  double seconds() override { return completion_->seconds(); }

 private:
  const std::shared_ptr<Completion> completion_;
  const NS::SharedPtr<MTL::CommandBuffer> commands_;
};

/// Ends an encoder of our own, whatever happens while it is encoded into.
class OwnEncoder {
 public:
  explicit OwnEncoder(MTL::CommandBuffer* commands)
      : encoder_(commands->computeCommandEncoder(MTL::DispatchTypeConcurrent)) {
    if (encoder_ == nullptr) throw Error(Code::device_error, "the command buffer gives no encoder");
  }
  ~OwnEncoder() { encoder_->endEncoding(); }
  OwnEncoder(const OwnEncoder&) = delete;
  OwnEncoder& operator=(const OwnEncoder&) = delete;

  MTL::ComputeCommandEncoder* get() const { return encoder_; }

 private:
  MTL::ComputeCommandEncoder* encoder_;
};

MTL::Size size_of(const std::array<std::int64_t, 3>& grid) {
  return {static_cast<NS::UInteger>(grid[0]), static_cast<NS::UInteger>(grid[1]),
          static_cast<NS::UInteger>(grid[2])};
}

}  // namespace

Call::Call(Device& device, std::string device_name, const Submission& submission)
    : device_(device),
      submission_(submission),
      completion_(std::make_shared<Completion>(std::move(device_name))) {
  const bool callers = submission.stream != nullptr || submission.encoder != nullptr;
  if (callers && submission.memory != Memory::metal_slice) {
    fail(
        "submission.memory: must be INGOT_MEMORY_METAL_SLICE with stream or encoder, got "
        "INGOT_MEMORY_ADDRESS (host memory would be read before earlier commands have run)");
  }
  if (submission.event != nullptr && submission.encoder != nullptr &&
      submission.stream == nullptr) {
    fail(
        "submission.event: must be NULL with an encoder, unless stream is the encoder's command "
        "buffer (an encoder does not tell whose it is)");
  }
  if (submission.stream != nullptr) check_stream();
}

void Call::check_stream() const {
  MTL::CommandBuffer* commands = stream_of(submission_);
  if (commands->device() != device_.handle()) {
    fail("submission.stream: must be a command buffer of this device, is one of another");
  }
  if (commands->status() >= MTL::CommandBufferStatusCommitted) {
    fail("submission.stream: must not be committed yet, has status " +
         std::to_string(static_cast<int>(commands->status())));
  }
}

void Call::encode(MTL::ComputeCommandEncoder* encoder) const {
  for (NS::UInteger index = 1; index < binding_count; ++index) {
    const Binding& binding = bindings_[index];
    if (binding.buffer != nullptr) encoder->setBuffer(binding.buffer, binding.offset, index);
  }
  for (const Dispatch& dispatch : dispatches_) {
    if (dispatch.waits) encoder->memoryBarrier(MTL::BarrierScopeBuffers);
    encoder->setComputePipelineState(dispatch.pipeline->state.get());
    encoder->setBytes(dispatch.params.data(), dispatch.params.size(), 0);
    if (dispatch.threadgroup_bytes > 0) {
      const std::int64_t bytes = (dispatch.threadgroup_bytes + 15) / 16 * 16;
      encoder->setThreadgroupMemoryLength(static_cast<NS::UInteger>(bytes), 0);
    }
    encoder->dispatchThreadgroups(size_of(dispatch.grid),
                                  MTL::Size(static_cast<NS::UInteger>(dispatch.threads), 1, 1));
  }
}

void Call::encode_into(MTL::CommandBuffer* commands) const {
  const OwnEncoder encoder(commands);
  encode(encoder.get());
}

void Call::run_and_wait() {
  const auto commands = NS::RetainPtr(device_.queue()->commandBuffer());
  encode_into(commands.get());
  commands->commit();
  commands->waitUntilCompleted();
  completion_->finish(commands.get());
  completion_->wait();
}

void Call::run_with_handler(NS::SharedPtr<MTL::CommandBuffer> commands, bool commit) {
  commands->addCompletedHandler(
      [completion = completion_](MTL::CommandBuffer* ended) { completion->finish(ended); });
  if (commit) commands->commit();
  if (submission_.event != nullptr) {
    *submission_.event = std::make_unique<CallEvent>(completion_, std::move(commands));
  }
}

void Call::submit() {
  if (submission_.encoder != nullptr) {
    encode(encoder_of(submission_));
    if (submission_.stream != nullptr) {
      run_with_handler(NS::RetainPtr(stream_of(submission_)), false);
    }
    return;
  }
  if (submission_.stream != nullptr) {
    encode_into(stream_of(submission_));
    return run_with_handler(NS::RetainPtr(stream_of(submission_)), false);
  }
  if (submission_.event == nullptr) return run_and_wait();
  auto commands = NS::RetainPtr(device_.queue()->commandBuffer());
  encode_into(commands.get());
  run_with_handler(std::move(commands), true);
}

}  // namespace ingot::metal
