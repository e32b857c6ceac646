// The tensors of a call by name, whatever the pass: where they lie, and copies of those in host
// memory.
#pragma once

#include <array>
#include <span>

#include "core/problem.hpp"
#include "cuda/cuda_device.hpp"
#include "cuda/host_tensors.hpp"

namespace ingot::cuda {

/// A tensor of a call: which one, and whether it is written.
struct Operand {
  const char* name = nullptr;
  const void* data = nullptr;
  Strides stride{};
  Sizes sizes{};
  std::int64_t element_bytes = 0;
  bool is_output = false;
  const void** place = nullptr;  ///< where the address goes that kernels use

  bool is_empty() const {
    return data == nullptr || sizes[0] * sizes[1] * sizes[2] * sizes[3] == 0;
  }
};

/// Without memory of its own: a call costs microseconds.
struct OperandList {
  std::array<Operand, 16> all{};
  std::size_t count = 0;

  operator std::span<const Operand>() const {  // NOLINT(google-explicit-constructor)
    return {all.data(), count};
  }
};

/// All tensors of `args`, and the places of their addresses there.
OperandList operands_of(const Problem& problem, ForwardArgs& args);
OperandList operands_of(const Problem& problem, BackwardArgs& args);

/// Where all of them lie. Throws Error(invalid_argument) where they are mixed, or lie on another
/// GPU.
Place common_place(const Device& device, std::span<const Operand> operands);

/// Copies to the GPU, and sets the places.
void copy_in(std::span<const Operand> operands, HostTensors& tensors);

}  // namespace ingot::cuda
