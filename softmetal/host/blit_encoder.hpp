// MTLBlitCommandEncoder, for buffers.
#pragma once

#include "compute_pass.hpp"

namespace softmetal {

class BlitEncoder : public CommandEncoder {
 public:
  explicit BlitEncoder(Ref<CommandBuffer> buffer);
  void copy_bytes(Buffer* source, std::uint64_t source_offset, Buffer* target,
                  std::uint64_t target_offset, std::uint64_t bytes);
  void fill(Buffer* buffer, Range range, std::uint8_t value);
  void synchronise(Resource* resource);
  void update_fence(Fence* fence);
  void wait_for_fence(Fence* fence);

 private:
  bool inside(const Buffer* buffer, std::uint64_t offset, std::uint64_t bytes,
              const char* which) const;
  Pass* pass_;  // owned by the command buffer
};

}  // namespace softmetal
