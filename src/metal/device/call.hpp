// One call: binds tensors, collects dispatches, then encodes and submits them where the caller
// wants them.
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "metal/device/completion.hpp"
#include "metal/device/device.hpp"

namespace ingot::metal {

/// Where element 0 of a tensor lies.
struct Binding {
  MTL::Buffer* buffer = nullptr;
  NS::UInteger offset = 0;
  const char* name = nullptr;  ///< of the caller's tensor in it
};

struct Dispatch {
  std::shared_ptr<const Pipeline> pipeline;
  std::vector<std::byte> params;  ///< buffer 0 of the kernel
  std::array<std::int64_t, 3> grid{};
  std::int64_t threads = 0;
  std::int64_t threadgroup_bytes = 0;
  bool waits = false;  ///< for the dispatches before it
};

class Call {
 public:
  /// Throws Error(invalid_argument) where the submission cannot be served.
  Call(Device& device, std::string device_name, const Submission& submission);

  /// Binds a tensor to an index of all kernels of the call. Host memory is used where it lies, from
  /// an address that is a multiple of a page; otherwise it is copied. Throws
  /// Error(invalid_argument) for slices outside of their buffer.
  void bind_input(int index, const char* name, const ConstTensor& tensor, const View& view);
  void bind_output(int index, const char* name, const Tensor& tensor, const View& view);
  /// For an index whose kernel argument is not looked at.
  void bind_nothing(int index);
  /// For one that the kernel could not write: some buffer that is bound already.
  void bind_unread(int index) { bindings_[index] = {bindings_[1].buffer, 0}; }
  /// Workspace of the call: the caller's slice or address (the pages around it are mapped), or,
  /// without one, the pool's. Throws Error(invalid_argument) for memory that the GPU cannot have.
  void take_workspace(std::span<std::byte> given, std::size_t bytes);
  void bind_workspace(int index, std::size_t offset);

  /// Address of element 0, as far as alignment goes.
  std::uint64_t address(int index) const { return bindings_[index].offset; }

  void add(Dispatch dispatch) { dispatches_.push_back(std::move(dispatch)); }

  /// Waits for the end unless the caller does (an event, a command buffer or encoder of theirs).
  void submit();

 private:
  struct Region {
    Binding element;              ///< element 0
    std::byte* staged = nullptr;  ///< its address in a copy of host memory, else null
  };

  Region region(const char* name, void* data, const View& view);
  void check_distinct(const char* name, const Binding& output) const;
  Binding slice(const char* name, const void* data, const Span& span, std::int64_t alignment) const;
  MTL::Buffer* dummy();
  MTL::Buffer* temporary(std::size_t bytes, const char* purpose);
  void check_stream() const;
  void encode(MTL::ComputeCommandEncoder* encoder) const;
  void encode_into(MTL::CommandBuffer* commands) const;
  void run_and_wait();
  void run_with_handler(NS::SharedPtr<MTL::CommandBuffer> commands, bool commit);

  static constexpr int binding_count = 20;

  Device& device_;
  const Submission submission_;
  const std::shared_ptr<Completion> completion_;
  std::array<Binding, binding_count> bindings_{};
  Binding workspace_;
  MTL::Buffer* dummy_ = nullptr;
  std::vector<Dispatch> dispatches_;
};

}  // namespace ingot::metal
