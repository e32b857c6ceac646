// The run-time arguments that GPU kernels get of a problem's parts.
#pragma once

#include "core/problem.hpp"
#include "variants/alibi.h"
#include "variants/part_params.h"

namespace ingot {

/// Strides of settled tensors; where bias has the extent 1 it repeats.
inline PartParams make_part_params(const Problem& p, const PartInputs& inputs) {
  PartParams params{};
  const auto strides = [](const ConstTensor& t) {
    return PartStrides{t.stride[0], t.stride[1], t.stride[2], t.stride[3]};
  };
  params.alibi_slopes = strides(inputs.alibi_slopes);
  params.mask = strides(inputs.mask);
  params.sinks = strides(inputs.sinks);
  params.prefix_len = strides(inputs.prefix_len);
  ConstTensor bias = inputs.bias;
  for (std::size_t i = 0; i < 4; ++i) {
    if (p.parts.bias_shape[i] == 1) bias.stride[i] = 0;
  }
  params.bias = strides(bias);
  params.position_shift = position_shift(static_cast<int>(p.causal), p.seqlen_q, p.seqlen_k);
  params.dropout = make_dropout_params(p.parts.dropout, inputs.dropout_seed, inputs.dropout_offset);
  return params;
}

}  // namespace ingot
