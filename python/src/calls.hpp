// The calls of module.cpp: from arrays and options to ingot_forward and ingot_backward.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "arrays.hpp"

namespace ingot_python {

/// What changes the result besides the arrays.
struct Options {
  int causal = INGOT_CAUSAL_NONE;
  std::int64_t window_left = -1, window_right = -1;
  double scale = 0;  ///< 0: 1 / sqrt(head_dim)
  double softcap = 0;
  int precision = INGOT_PRECISION_HIGHEST;
  std::int64_t workspace_limit = 0;  ///< 0: the library's own
};

/// lse may be None; parts: see part_views.
void forward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
             nb::handle parts, const Options& options, const std::string& device,
             std::uintptr_t stream);

/// Of dq, dk, dv, dbias and dsinks at least one is no None.
void backward(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
              nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv, nb::handle dbias,
              nb::handle dsinks, nb::handle parts, const Options& options,
              const std::string& device, std::uintptr_t stream);

/// The same for parts of the batch, as a group of calls. blocks: six numbers for each, [first
/// entry, end, first query, end, first key, end], ends exclusive; all are checked before the first
/// runs. Raises InvalidArgument.
void forward_ragged(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                    const std::vector<std::int64_t>& blocks, const Options& options,
                    const std::string& device, std::uintptr_t stream);
void backward_ragged(nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
                     nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv,
                     const std::vector<std::int64_t>& blocks, const Options& options,
                     const std::string& device, std::uintptr_t stream);

std::vector<std::tuple<std::string, std::string>> devices();

/// shape: (batch, num_heads, num_heads_kv, seqlen_q, seqlen_k, head_dim, head_dim_v).
std::string explain(const std::array<std::int64_t, 7>& shape, const std::string& dtype,
                    const Options& options, const std::string& device, bool json);

/// Sets the two numbers, of which 0 is the default. Throws InvalidArgument where one becomes 0 or
/// infinite as float32; the library refuses all others that are too small or too large.
void set_factors(ingot_problem& problem, double scale, double softcap);

/// The device that computes on memory of this kind; throws where there is none.
std::string device_of(const View& view);

}  // namespace ingot_python
