// The tensors of a case as slices of Metal buffers.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "conformance.hpp"
#include "metal/device/metal_cpp.hpp"

namespace ingot::conformance {

/// The memory of a case in Metal buffers of exactly its size, tensors at odd offsets in them.
class Slices {
 public:
  Slices(MTL::Device* device, const Operands& t) : t_(t) {
    const Operand* const all[] = {&t.q, &t.k, &t.v, &t.dout, &t.o, &t.lse, &t.dq, &t.dk, &t.dv};
    for (const Operand* x : all) {
      const bool known = std::ranges::any_of(
          memory_, [x](const Memory& m) { return m.host.get() == x->buffer.get(); });
      if (!known) add(device, x->buffer);
    }
    slices_.reserve(64);
  }

  ingot_forward_args forward_args() {
    ingot_forward_args args;
    ingot_forward_args_init(&args);
    args.q = tensor(t_.q), args.k = tensor(t_.k), args.v = tensor(t_.v), args.o = tensor(t_.o);
    args.lse = tensor(t_.lse);
    args.submission.memory = INGOT_MEMORY_METAL_SLICE;
    return args;
  }

  ingot_backward_args backward_args() {
    ingot_backward_args args;
    ingot_backward_args_init(&args);
    args.q = tensor(t_.q), args.k = tensor(t_.k), args.v = tensor(t_.v), args.o = tensor(t_.o);
    args.lse = tensor(t_.lse), args.dout = tensor(t_.dout);
    args.dq = tensor(t_.dq), args.dk = tensor(t_.dk), args.dv = tensor(t_.dv);
    args.submission.memory = INGOT_MEMORY_METAL_SLICE;
    return args;
  }

  /// What the GPU wrote goes to the case's own memory, where it can be compared.
  void copy_back() {
    for (const Memory& m : memory_) {
      std::memcpy(m.host->at(0), start_of(m), bytes_of(*m.host));
    }
  }

  ingot_metal_slice& slice_of(const ingot_tensor& tensor) {
    return *static_cast<ingot_metal_slice*>(tensor.data);
  }

 private:
  struct Memory {
    std::shared_ptr<Buffer> host;
    NS::SharedPtr<MTL::Buffer> device;
    std::size_t offset;
  };

  static std::size_t bytes_of(const Buffer& host) {
    return static_cast<std::size_t>(host.elements() * size_of(host.dtype()));
  }
  static std::byte* start_of(const Memory& m) {
    return static_cast<std::byte*>(m.device->contents()) + m.offset;
  }

  void add(MTL::Device* device, const std::shared_ptr<Buffer>& host) {
    const std::size_t offset =
        (2 * memory_.size() + 1) * static_cast<std::size_t>(size_of(host->dtype()));
    const std::size_t length = std::max<std::size_t>(offset + bytes_of(*host), 1);
    Memory m{host, NS::TransferPtr(device->newBuffer(length, MTL::ResourceStorageModeShared)),
             offset};
    std::memcpy(start_of(m), host->at(0), bytes_of(*host));
    memory_.push_back(std::move(m));
  }

  ingot_tensor tensor(const Operand& x) {
    ingot_tensor tensor = x.tensor();
    for (const Memory& m : memory_) {
      if (m.host.get() != x.buffer.get()) continue;
      const auto origin = static_cast<std::size_t>(x.view.origin * size_of(m.host->dtype()));
      tensor.data = &slices_.emplace_back(ingot_metal_slice{m.device.get(), m.offset + origin});
    }
    return tensor;
  }

  const Operands& t_;
  std::vector<Memory> memory_;
  std::vector<ingot_metal_slice> slices_;
};

}  // namespace ingot::conformance
