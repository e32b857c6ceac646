#include "compute_encoder.hpp"

namespace softmetal {
namespace {

std::string text_of(const Extent& extent) {
  return text("{", extent.width, ", ", extent.height, ", ", extent.depth, "}");
}

}  // namespace

ComputeEncoder::ComputeEncoder(Ref<CommandBuffer> buffer, bool concurrent, std::string pass_name)
    : CommandEncoder(std::move(buffer)), concurrent_(concurrent) {
  auto pass = std::make_unique<Pass>(std::move(pass_name), concurrent);
  pass_ = pass.get();
  this->buffer().add_step(std::move(pass));
}

std::string ComputeEncoder::kernel() const {
  return pipeline_ ? text("kernel '", pipeline_->kernel(), "'") : std::string("no pipeline");
}

void ComputeEncoder::set_pipeline(ComputePipeline* pipeline) {
  if (!encoding()) {
    return;
  }
  if (pipeline == nullptr) {
    error("null-argument", text(current_message(), ": the pipeline must not be nil"));
    return;
  }
  pipeline_ = pipeline;
}

bool ComputeEncoder::valid_index(std::uint64_t index) const {
  if (index < msl::kMaxBuffers) {
    return true;
  }
  error("binding-index",
        text(current_message(), ": index ", index, " must be at most ", msl::kMaxBuffers - 1));
  return false;
}

bool ComputeEncoder::valid_offset(const Buffer& buffer, std::uint64_t offset) const {
  if (offset < buffer.length()) {
    return true;
  }
  error("binding-offset", text(current_message(), ": offset ", offset, " is behind the end of ",
                               buffer.name_for_findings(), " of length ", buffer.length()));
  return false;
}

void ComputeEncoder::set_buffer(Buffer* buffer, std::uint64_t offset, std::uint64_t index) {
  if (!encoding() || !valid_index(index)) {
    return;
  }
  if (buffer == nullptr) {
    slots_[index] = {};
  } else if (valid_offset(*buffer, offset)) {
    slots_[index] = {UsedBuffer(buffer, this->buffer().retains()), offset, {}};
  }
}

void ComputeEncoder::set_buffers(ObjectArray buffers, const void* offsets, Range range) {
  for (std::uint64_t i = 0; i < range.length; ++i) {
    set_buffer(buffers.pointers[i] != nullptr ? element<Buffer>(buffers, i) : nullptr,
               static_cast<const std::uint64_t*>(offsets)[i], range.location + i);
  }
}

void ComputeEncoder::set_offset(std::uint64_t offset, std::uint64_t index) {
  if (!encoding() || !valid_index(index)) {
    return;
  }
  Slot& slot = slots_[index];
  if (!slot.buffer) {
    error("binding-offset", text(current_message(), ": no buffer is bound at index ", index));
  } else if (valid_offset(*slot.buffer.at_encoding(), offset)) {
    slot.offset = offset;
  }
}

void ComputeEncoder::set_bytes(const void* bytes, std::uint64_t length, std::uint64_t index) {
  if (!encoding() || !valid_index(index)) {
    return;
  }
  if (bytes == nullptr || length == 0 || length > max_set_bytes) {
    error("set-bytes-length", text(current_message(), ": length ", length, " at index ", index,
                                   " must be 1 to ", max_set_bytes, " (use a buffer for more)"));
    return;
  }
  const auto* begin = static_cast<const std::byte*>(bytes);
  slots_[index] = {{}, 0, std::vector<std::byte>(begin, begin + length)};
}

void ComputeEncoder::set_threadgroup_length(std::uint64_t length, std::uint64_t index) {
  if (!encoding() || !valid_index(index)) {
    return;
  }
  if (length % 16 != 0) {
    error("threadgroup-length", text(current_message(), ": length ", length, " at index ", index,
                                     " must be a multiple of 16 bytes"));
    return;
  }
  if (length > max_threadgroup_bytes) {
    error("threadgroup-memory", text(current_message(), ": length ", length, " at index ", index,
                                     " is over the device's ", max_threadgroup_bytes, " bytes"));
    return;
  }
  lengths_[index] = length;
}

bool ComputeEncoder::valid_threadgroup(const Extent& threadgroup) const {
  const std::uint64_t threads = threadgroup.count();
  const std::uint64_t limit = pipeline_->max_threads();
  if (threads == 0 || threads > limit || threadgroup.width > max_threads_per_threadgroup ||
      threadgroup.height > max_threads_per_threadgroup ||
      threadgroup.depth > max_threads_per_threadgroup) {
    error("threads-per-threadgroup",
          text(current_message(), ": ", kernel(), ": threadgroup ", text_of(threadgroup), " has ",
               threads, " threads, the pipeline allows 1 to ", limit));
    return false;
  }
  if (pipeline_->whole_simdgroups() && threads % pipeline_->execution_width() != 0) {
    error("whole-simdgroups",
          text(current_message(), ": ", kernel(), ": ", threads,
               " threads are not a multiple of threadExecutionWidth, which the pipeline promised"));
    return false;
  }
  const Extent required = pipeline_->required_threads();
  if (required.count() != 0 &&
      (required.width != threadgroup.width || required.height != threadgroup.height ||
       required.depth != threadgroup.depth)) {
    error("threads-per-threadgroup",
          text(current_message(), ": ", kernel(), ": threadgroup ", text_of(threadgroup),
               " is not the one the pipeline requires, ", text_of(required)));
    return false;
  }
  return true;
}

bool ComputeEncoder::valid_threadgroup_memory() const {
  std::uint64_t sum = pipeline_->static_threadgroup_bytes();
  for (const std::size_t length : lengths_) {
    sum += length;
  }
  if (sum <= max_threadgroup_bytes) {
    return true;
  }
  error("threadgroup-memory",
        text(current_message(), ": ", kernel(), " needs ", sum, " bytes of threadgroup memory (",
             pipeline_->static_threadgroup_bytes(), " static), the device has ",
             max_threadgroup_bytes));
  return false;
}

bool ComputeEncoder::valid_binding(const msl::Binding& binding) const {
  const std::string what =
      text(kernel(), ": argument '", binding.name, "' at index ", binding.index);
  if (binding.kind == msl::BindingKind::threadgroup) {
    if (lengths_[binding.index] == 0) {
      error("missing-binding",
            text(current_message(), ": ", what, " needs setThreadgroupMemoryLength"));
      return false;
    }
    return true;
  }
  if (binding.kind != msl::BindingKind::buffer) {
    error("unsupported", text(current_message(), ": ", what, " is a texture or sampler"));
    return false;
  }
  const Slot& slot = slots_[binding.index];
  if (!slot.bound()) {
    error("missing-binding", text(current_message(), ": ", what, " has no buffer"));
    return false;
  }
  const std::uint64_t bytes =
      slot.buffer ? slot.buffer.at_encoding()->length() - slot.offset : slot.bytes.size();
  if (binding.size != 0 && bytes < binding.size) {
    error("binding-size", text(current_message(), ": ", what, " is a ", binding.type, " of ",
                               binding.size, " bytes, but ", bytes, " are bound"));
    return false;
  }
  if (slot.buffer && binding.alignment != 0 && slot.offset % binding.alignment != 0) {
    error("binding-alignment",
          text(current_message(), ": ", what, ": offset ", slot.offset,
               " is not a multiple of the alignment of ", binding.type, ", ", binding.alignment));
    return false;
  }
  return true;
}

bool ComputeEncoder::valid_bindings() const {
  bool valid = true;
  for (const msl::Binding& binding : pipeline_->code().info().bindings) {
    valid = (!binding.active || valid_binding(binding)) && valid;
  }
  return valid;
}

bool ComputeEncoder::can_dispatch(const Extent& threadgroup) const {
  if (!encoding()) {
    return false;
  }
  if (!pipeline_) {
    error("no-pipeline", text(current_message(), ": setComputePipelineState must come first"));
    return false;
  }
  const bool threadgroup_fits = valid_threadgroup(threadgroup);
  const bool memory_fits = valid_threadgroup_memory();
  return valid_bindings() && threadgroup_fits && memory_fits;
}

void ComputeEncoder::record(Extent grid, Extent threadgroup, bool exact) {
  if (!can_dispatch(threadgroup)) {
    return;
  }
  if (grid.count() == 0) {
    error("empty-grid",
          text(current_message(), ": ", kernel(), ": grid ", text_of(grid), " is empty"));
    return;
  }
  pass_->add(DispatchCommand{pipeline_, slots_, lengths_, grid, exact, threadgroup, {}, 0});
}

void ComputeEncoder::dispatch_threadgroups(Extent grid, Extent threadgroup) {
  record(grid, threadgroup, false);
}

void ComputeEncoder::dispatch_threads(Extent grid, Extent threadgroup) {
  record(grid, threadgroup, true);
}

void ComputeEncoder::dispatch_indirect(Buffer* buffer, std::uint64_t offset, Extent threadgroup) {
  if (!can_dispatch(threadgroup)) {
    return;
  }
  if (buffer == nullptr || offset % 4 != 0 || offset + 12 > buffer->length()) {
    error("indirect-buffer", text(current_message(), ": ", kernel(), ": offset ", offset,
                                  " must be a multiple of 4 with 12 bytes behind it"));
    return;
  }
  pass_->add(DispatchCommand{pipeline_,
                             slots_,
                             lengths_,
                             {},
                             false,
                             threadgroup,
                             UsedBuffer(buffer, this->buffer().retains()),
                             offset});
}

void ComputeEncoder::barrier(std::uint64_t scope) {
  constexpr std::uint64_t scope_buffers = 1;
  if (encoding() && (scope & scope_buffers) != 0) {
    pass_->add(BarrierCommand{{}, true});
  }
}

void ComputeEncoder::barrier_of(ObjectArray resources, std::uint64_t count) {
  if (!encoding()) {
    return;
  }
  BarrierCommand command;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (const auto* buffer = element<Buffer>(resources, i)) {
      command.only.push_back({buffer->gpu_address(), buffer->gpu_address() + buffer->length()});
    }
  }
  pass_->add(std::move(command));
}

void ComputeEncoder::update_fence(Fence* fence) {
  if (encoding() && fence != nullptr) {
    pass_->add(UpdateFenceCommand{fence});
  }
}

void ComputeEncoder::wait_for_fence(Fence* fence) {
  if (encoding() && fence != nullptr) {
    pass_->add(WaitFenceCommand{fence});
  }
}

void ComputeEncoder::use_resource(Resource* resource, std::uint64_t) {
  if (encoding() && resource != nullptr) {
    pass_->make_resident(resource);
  }
}

void ComputeEncoder::use_resources(ObjectArray resources, std::uint64_t count,
                                   std::uint64_t usage) {
  for (std::uint64_t i = 0; i < count; ++i) {
    use_resource(element<Resource>(resources, i), usage);
  }
}

void ComputeEncoder::use_heap(Heap* heap) {
  if (encoding() && heap != nullptr) {
    pass_->make_resident(heap);
  }
}

void ComputeEncoder::use_heaps(ObjectArray heaps, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    use_heap(element<Heap>(heaps, i));
  }
}

}  // namespace softmetal
