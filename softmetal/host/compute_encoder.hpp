// MTLComputeCommandEncoder: records commands and checks them as Metal's validation layer does.
#pragma once

#include "compute_pass.hpp"

namespace softmetal {

class ComputeEncoder : public CommandEncoder {
 public:
  ComputeEncoder(Ref<CommandBuffer> buffer, bool concurrent, std::string pass_name);
  std::uint64_t dispatch_type() const { return concurrent_ ? 1 : 0; }

  void sample_times(const SampleAttachment& attachment) { pass_->sample_times(attachment); }

  void set_pipeline(ComputePipeline* pipeline);
  void set_buffer(Buffer* buffer, std::uint64_t offset, std::uint64_t index);
  void set_buffers(ObjectArray buffers, const void* offsets, Range range);
  void set_offset(std::uint64_t offset, std::uint64_t index);
  void set_bytes(const void* bytes, std::uint64_t length, std::uint64_t index);
  void set_threadgroup_length(std::uint64_t length, std::uint64_t index);

  void dispatch_threadgroups(Extent grid, Extent threadgroup);
  void dispatch_threads(Extent grid, Extent threadgroup);
  void dispatch_indirect(Buffer* buffer, std::uint64_t offset, Extent threadgroup);

  void barrier(std::uint64_t scope);
  void barrier_of(ObjectArray resources, std::uint64_t count);
  void update_fence(Fence* fence);
  void wait_for_fence(Fence* fence);
  void use_resource(Resource* resource, std::uint64_t usage);
  void use_resources(ObjectArray resources, std::uint64_t count, std::uint64_t usage);
  void use_heap(Heap* heap);
  void use_heaps(ObjectArray heaps, std::uint64_t count);

 private:
  bool valid_index(std::uint64_t index) const;
  bool valid_offset(const Buffer& buffer, std::uint64_t offset) const;
  bool valid_threadgroup(const Extent& threadgroup) const;
  bool valid_threadgroup_memory() const;
  bool valid_bindings() const;
  bool valid_binding(const msl::Binding& binding) const;
  bool can_dispatch(const Extent& threadgroup) const;
  void record(Extent grid, Extent threadgroup, bool exact);
  std::string kernel() const;

  const bool concurrent_;
  Pass* pass_;  // owned by the command buffer
  Ref<ComputePipeline> pipeline_;
  Slots slots_;
  ThreadgroupLengths lengths_{};
};

}  // namespace softmetal
