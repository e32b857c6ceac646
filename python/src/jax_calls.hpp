// Handlers of JAX's custom calls, for its CPU and CUDA platforms. Attributes: causal, window_left,
// window_right, precision, workspace_limit (s64), scale, softcap (f64), and, 0 where they are not
// there, parts and gradients (s64, bits) and dropout (f64). Buffers are contiguous in the order of
// their shapes. After all others come the parts that have a bit: alibi_slopes, bias, mask, sinks,
// prefix_len, and seed and offset as four words of u32.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "calls.hpp"
#include "xla_ffi.hpp"

namespace ingot_python {

/// Raises what a call would fail with wherever it runs, while JAX still traces it: from within XLA
/// an error reaches the caller as one of JAX's. shape as explain() has it; dtypes of q, k and v;
/// arrays of the parts in their order.
using DescribedArray = std::tuple<std::vector<std::int64_t>, std::string>;  ///< shape, dtype
void jax_check(const std::array<std::int64_t, 7>& shape, const std::array<std::string, 3>& dtypes,
               const std::array<std::optional<DescribedArray>, 5>& arrays, double dropout,
               const Options& options);

/// (q, k, v, parts) -> (o, lse)
xla::Error* jax_forward_cpu(xla::CallFrame* frame);
xla::Error* jax_forward_cuda(xla::CallFrame* frame);
/// (q, k, v, o, lse, dout, parts) -> (dq, dk, dv), and of (dbias, dsinks) those that gradients has
/// a bit for
xla::Error* jax_backward_cpu(xla::CallFrame* frame);
xla::Error* jax_backward_cuda(xla::CallFrame* frame);

}  // namespace ingot_python
