// Device "reference": the definition of the answer.
#pragma once

#include <memory>

#include "core/backend.hpp"

namespace ingot {

/// Attention in fp64 by three plain loops, on the calling thread. Written to be read and to share
/// nothing with the kernels, not even the mask. Takes every problem, and F64 for any tensor;
/// allocates O(seqlen) memory per call.
///
/// backward() is a function of q, k, v and dout alone: it computes its own softmax and does not
/// look at o and lse, so that a wrong forward pass cannot hide behind gradients that agree with it.
std::unique_ptr<Backend> make_reference_backend();

}  // namespace ingot
