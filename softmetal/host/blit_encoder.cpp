#include "blit_encoder.hpp"

namespace softmetal {

BlitEncoder::BlitEncoder(Ref<CommandBuffer> buffer) : CommandEncoder(std::move(buffer)) {
  auto pass = std::make_unique<Pass>("a blit encoder", false);
  pass_ = pass.get();
  this->buffer().add_step(std::move(pass));
}

bool BlitEncoder::inside(const Buffer* buffer, std::uint64_t offset, std::uint64_t bytes,
                         const char* which) const {
  if (buffer == nullptr) {
    error("null-argument", text(current_message(), ": the ", which, " must not be nil"));
    return false;
  }
  if (bytes == 0 || offset > buffer->length() || bytes > buffer->length() - offset) {
    error("copy-range",
          text(current_message(), ": ", bytes, " bytes at offset ", offset, " are not inside the ",
               which, ", ", buffer->name_for_findings(), " of length ", buffer->length()));
    return false;
  }
  if (offset % 4 != 0 || bytes % 4 != 0) {
    error("copy-alignment", text(current_message(), ": offset ", offset, " and size ", bytes,
                                 " of the ", which, " must be multiples of 4"));
    return false;
  }
  return true;
}

void BlitEncoder::copy_bytes(Buffer* source, std::uint64_t source_offset, Buffer* target,
                             std::uint64_t target_offset, std::uint64_t bytes) {
  if (!encoding() || !inside(source, source_offset, bytes, "source") ||
      !inside(target, target_offset, bytes, "destination")) {
    return;
  }
  const bool apart =
      source_offset + bytes <= target_offset || target_offset + bytes <= source_offset;
  if (source == target && !apart) {
    error("copy-overlap", text(current_message(), ": source and destination overlap in ",
                               source->name_for_findings()));
    return;
  }
  const bool retain = buffer().retains();
  pass_->add(CopyCommand{UsedBuffer(source, retain), source_offset, UsedBuffer(target, retain),
                         target_offset, bytes});
}

void BlitEncoder::fill(Buffer* target, Range range, std::uint8_t value) {
  if (encoding() && inside(target, range.location, range.length, "buffer")) {
    pass_->add(FillCommand{UsedBuffer(target, buffer().retains()), range, value});
  }
}

void BlitEncoder::synchronise(Resource* resource) {
  if (encoding() && resource != nullptr && resource->options().storage() != StorageMode::managed) {
    error("storage-mode", text(current_message(), ": ", resource->name_for_findings(),
                               " must have managed storage"));
  }
}

void BlitEncoder::update_fence(Fence* fence) {
  if (encoding() && fence != nullptr) {
    pass_->add(UpdateFenceCommand{fence});
  }
}

void BlitEncoder::wait_for_fence(Fence* fence) {
  if (encoding() && fence != nullptr) {
    pass_->add(WaitFenceCommand{fence});
  }
}

}  // namespace softmetal
