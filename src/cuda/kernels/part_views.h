// The tensors of the parts that are on (variants/variant.h), as kernels get them.
#pragma once

#include "variants/part_params.h"

namespace ingot {

struct PartViews {
  PartParams params;
  const void *alibi_slopes, *bias, *mask, *sinks, *prefix_len, *dropout_state;
};

}  // namespace ingot
