// What launches of the backward kernels that keep keys in place have in common.
#pragma once

#include "cuda/kernels/backward_params.h"
#include "cuda/launch_product.hpp"

namespace ingot::cuda {

/// Arguments for one group of heads and chunk of keys: `ds` says which. `block_n`: keys of a tile.
StoredParams stored_params(const BackwardCall& call, const std::byte* statistics,
                           const StoredOperand& ds, std::int64_t block_n);

}  // namespace ingot::cuda
