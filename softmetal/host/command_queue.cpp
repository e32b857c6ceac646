#include "command_buffer.hpp"
#include "residency.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::uint64_t default_limit = 64;

class QueueDescriptor : public Object {
 public:
  std::uint64_t limit = default_limit;
  Ref<Object> log_state;
};

class BufferDescriptor : public Object {
 public:
  bool retained_references = true;
  std::uint64_t error_options = 0;
  Ref<Object> log_state;
};

Ref<CommandQueue> new_queue_with_limit(Device& device, std::uint64_t limit) {
  if (limit == 0) {
    error("queue-limit", text(current_message(), ": the count must not be 0"));
    return nullptr;
  }
  return make<CommandQueue>(&device, limit);
}

Ref<CommandQueue> new_queue(Device& device) { return new_queue_with_limit(device, default_limit); }

Ref<CommandQueue> new_queue_with_descriptor(Device& device, QueueDescriptor* descriptor) {
  return new_queue_with_limit(device, descriptor != nullptr ? descriptor->limit : default_limit);
}

Ref<CommandBuffer> command_buffer(CommandQueue& self) { return self.new_command_buffer(true); }
Ref<CommandBuffer> unretained_command_buffer(CommandQueue& self) {
  return self.new_command_buffer(false);
}
Ref<CommandBuffer> described_command_buffer(CommandQueue& self, BufferDescriptor* descriptor) {
  return self.new_command_buffer(descriptor == nullptr || descriptor->retained_references);
}

void capture_boundary(CommandQueue&) {}
std::uint64_t status(const CommandBuffer& self) {
  return static_cast<std::uint64_t>(self.status());
}
void push_group(CommandBuffer&, String*) {}
void pop_group(CommandBuffer&) {}
Object* no_logs(const CommandBuffer&) { return nullptr; }
std::uint64_t no_error_options(const CommandBuffer&) { return 0; }

void define_queue() {
  Definition<QueueDescriptor>("MTLCommandQueueDescriptor", class_of<Object>)
      .allocatable()
      .property<&QueueDescriptor::limit>("maxCommandBufferCount", {15, 0})
      .property<&QueueDescriptor::log_state>("logState", {15, 0});
  Definition<CommandQueue>("MTLCommandQueue", class_of<Object>)
      .property<&CommandQueue::label>("label")
      .method<&CommandQueue::device>("device")
      .method<&command_buffer>("commandBuffer")
      .method<&unretained_command_buffer>("commandBufferWithUnretainedReferences")
      .method<&described_command_buffer>("commandBufferWithDescriptor:", {11, 0})
      .method<&capture_boundary>("insertDebugCaptureBoundary");
  Definition<Device>()
      .method<&new_queue>("newCommandQueue")
      .method<&new_queue_with_limit>("newCommandQueueWithMaxCommandBufferCount:")
      .method<&new_queue_with_descriptor>("newCommandQueueWithDescriptor:", {15, 0});
}

}  // namespace

Ref<CommandBuffer> CommandQueue::new_command_buffer(bool retains) {
  wait_for_room();
  return make<CommandBuffer>(Ref<CommandQueue>(this), retains);
}

void CommandQueue::wait_for_room() {
  std::unique_lock lock(mutex_);
  if (alive_ >= limit_ && in_flight_ == 0) {
    error("command-buffer-limit",
          text(current_message(), ": ", name_for_findings(), " already has ", alive_,
               " command buffers and none is committed: this call would never return"));
  } else {
    changed_.wait(lock, [this] { return alive_ < limit_ || in_flight_ == 0; });
  }
  ++alive_;
}

void CommandQueue::enqueue(CommandBuffer& buffer) {
  const std::lock_guard lock(mutex_);
  order_.emplace_back(&buffer);
}

void CommandQueue::one_committed() {
  const std::lock_guard lock(mutex_);
  ++in_flight_;
}

void CommandQueue::one_finished() {
  const std::lock_guard lock(mutex_);
  --alive_;
  in_flight_ -= in_flight_ > 0 ? 1 : 0;
  changed_.notify_all();
}

void CommandQueue::run_what_is_committed() {
  const std::lock_guard lock(mutex_);
  while (!order_.empty() && order_.front()->status() >= CommandStatus::committed) {
    executor_.post([buffer = order_.front()] { buffer->execute(); });
    order_.pop_front();
  }
}

void define_command_buffer() {
  define_queue();
  Definition<BufferDescriptor>("MTLCommandBufferDescriptor", class_of<Object>)
      .allocatable()
      .property<&BufferDescriptor::retained_references>("retainedReferences", {11, 0})
      .property<&BufferDescriptor::error_options>("errorOptions", {11, 0})
      .property<&BufferDescriptor::log_state>("logState", {15, 0});
  using B = CommandBuffer;
  Definition<B>("MTLCommandBuffer", class_of<Object>)
      .property<&B::label>("label")
      .method<&B::device>("device")
      .method<&B::queue>("commandQueue")
      .method<&B::retains>("retainedReferences")
      .method<&B::enqueue>("enqueue")
      .method<&B::commit>("commit")
      .method<&B::wait_until_completed>("waitUntilCompleted")
      .method<&B::wait_until_scheduled>("waitUntilScheduled")
      .method<&B::add_completed_handler>("addCompletedHandler:")
      .method<&B::add_scheduled_handler>("addScheduledHandler:")
      .method<&status>("status")
      .method<&B::error>("error")
      .method<&no_error_options>("errorOptions", {11, 0})
      .method<&no_logs>("logs", {11, 0})
      .method<&B::gpu_start>("GPUStartTime", {10, 15})
      .method<&B::gpu_end>("GPUEndTime", {10, 15})
      .method<&B::kernel_start>("kernelStartTime", {10, 15})
      .method<&B::kernel_end>("kernelEndTime", {10, 15})
      .method<&push_group>("pushDebugGroup:", {10, 13})
      .method<&pop_group>("popDebugGroup", {10, 13});
}

}  // namespace softmetal
