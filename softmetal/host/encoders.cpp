// The messages that make encoders, and those that encoders take.
#include "blit_encoder.hpp"
#include "compute_encoder.hpp"
#include "counter_samples.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

class ComputePassDescriptor : public Object {
 public:
  SampleAttachments* attachments() const { return attachments_.get(); }
  std::uint64_t dispatch_type = 0;

 private:
  Ref<SampleAttachments> attachments_ = make<SampleAttachments>();
};
class BlitPassDescriptor : public Object {};

Ref<ComputePassDescriptor> compute_pass_descriptor() { return make<ComputePassDescriptor>(); }
Ref<BlitPassDescriptor> blit_pass_descriptor() { return make<BlitPassDescriptor>(); }

Ref<ComputeEncoder> typed_encoder(CommandBuffer& self, std::uint64_t type) {
  if (!self.can_encode("a compute encoder")) {
    return nullptr;
  }
  const bool concurrent = type == 1;
  std::string name = concurrent ? "a concurrent compute encoder" : "a compute encoder";
  if (const std::string label = self.label_text(); !label.empty()) {
    name += text(" of command buffer '", label, "'");
  }
  return make<ComputeEncoder>(&self, concurrent, std::move(name));
}

Ref<ComputeEncoder> serial_encoder(CommandBuffer& self) { return typed_encoder(self, 0); }

Ref<ComputeEncoder> described_encoder(CommandBuffer& self, ComputePassDescriptor* descriptor) {
  Ref<ComputeEncoder> encoder =
      typed_encoder(self, descriptor != nullptr ? descriptor->dispatch_type : 0);
  if (encoder && descriptor != nullptr) {
    for (const Ref<SampleAttachment>& attachment : descriptor->attachments()->all()) {
      encoder->sample_times(*attachment);
    }
  }
  return encoder;
}

Ref<BlitEncoder> blit_encoder(CommandBuffer& self) {
  return self.can_encode("a blit encoder") ? make<BlitEncoder>(&self) : nullptr;
}

Ref<BlitEncoder> described_blit_encoder(CommandBuffer& self, BlitPassDescriptor*) {
  return blit_encoder(self);
}

void define_compute_encoder() {
  using E = ComputeEncoder;
  Definition<E>("MTLComputeCommandEncoder", class_of<CommandEncoder>)
      .method<&E::dispatch_type>("dispatchType", {10, 14})
      .method<&E::set_pipeline>("setComputePipelineState:")
      .method<&E::set_buffer>("setBuffer:offset:atIndex:")
      .method<&E::set_buffers>("setBuffers:offsets:withRange:")
      .method<&E::set_offset>("setBufferOffset:atIndex:")
      .method<&E::set_bytes>("setBytes:length:atIndex:")
      .method<&E::set_threadgroup_length>("setThreadgroupMemoryLength:atIndex:")
      .method<&E::dispatch_threadgroups>("dispatchThreadgroups:threadsPerThreadgroup:")
      .method<&E::dispatch_threads>("dispatchThreads:threadsPerThreadgroup:", {10, 13})
      .method<&E::dispatch_indirect>(
          "dispatchThreadgroupsWithIndirectBuffer:indirectBufferOffset:threadsPerThreadgroup:")
      .method<&E::barrier>("memoryBarrierWithScope:", {10, 14})
      .method<&E::barrier_of>("memoryBarrierWithResources:count:", {10, 14})
      .method<&E::update_fence>("updateFence:", {10, 13})
      .method<&E::wait_for_fence>("waitForFence:", {10, 13})
      .method<&E::use_resource>("useResource:usage:", {10, 13})
      .method<&E::use_resources>("useResources:count:usage:", {10, 13})
      .method<&E::use_heap>("useHeap:", {10, 13})
      .method<&E::use_heaps>("useHeaps:count:", {10, 13});
}

void define_blit_encoder() {
  using B = BlitEncoder;
  Definition<B>("MTLBlitCommandEncoder", class_of<CommandEncoder>)
      .method<&B::copy_bytes>("copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:")
      .method<&B::fill>("fillBuffer:range:value:")
      .method<&B::synchronise>("synchronizeResource:")
      .method<&B::update_fence>("updateFence:", {10, 13})
      .method<&B::wait_for_fence>("waitForFence:", {10, 13});
}

}  // namespace

void define_encoders() {
  Definition<ComputePassDescriptor>("MTLComputePassDescriptor", class_of<Object>)
      .allocatable()
      .class_method<&compute_pass_descriptor>("computePassDescriptor", {11, 0})
      .property<&ComputePassDescriptor::dispatch_type>("dispatchType", {11, 0})
      .method<&ComputePassDescriptor::attachments>("sampleBufferAttachments", {11, 0});
  Definition<BlitPassDescriptor>("MTLBlitPassDescriptor", class_of<Object>)
      .allocatable()
      .class_method<&blit_pass_descriptor>("blitPassDescriptor", {11, 0});
  Definition<CommandEncoder>("MTLCommandEncoder", class_of<Object>)
      .property<&CommandEncoder::label>("label")
      .method<&CommandEncoder::device>("device")
      .method<&CommandEncoder::end_encoding>("endEncoding")
      .method<&CommandEncoder::push_group>("pushDebugGroup:")
      .method<&CommandEncoder::pop_group>("popDebugGroup")
      .method<&CommandEncoder::signpost>("insertDebugSignpost:");
  define_counter_samples();
  define_compute_encoder();
  define_blit_encoder();
  Definition<CommandBuffer>()
      .method<&serial_encoder>("computeCommandEncoder")
      .method<&typed_encoder>("computeCommandEncoderWithDispatchType:", {10, 14})
      .method<&described_encoder>("computeCommandEncoderWithDescriptor:", {11, 0})
      .method<&blit_encoder>("blitCommandEncoder")
      .method<&described_blit_encoder>("blitCommandEncoderWithDescriptor:", {11, 0});
}

}  // namespace softmetal
