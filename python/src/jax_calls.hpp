// Handlers of JAX's custom calls, for its CPU and CUDA platforms. Attributes: causal, window_left,
// window_right, precision, workspace_limit (s64), scale, softcap (f64). Buffers are contiguous in
// the order of their shapes.
#pragma once

#include "xla_ffi.hpp"

namespace ingot_python {

/// (q, k, v) -> (o, lse)
xla::Error* jax_forward_cpu(xla::CallFrame* frame);
xla::Error* jax_forward_cuda(xla::CallFrame* frame);
/// (q, k, v, o, lse, dout) -> (dq, dk, dv)
xla::Error* jax_backward_cpu(xla::CallFrame* frame);
xla::Error* jax_backward_cuda(xla::CallFrame* frame);

}  // namespace ingot_python
