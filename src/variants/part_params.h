// Run-time arguments of the parts of attention (variant.h): what changes every call, but for
// addresses. Read by hosts and kernels.
#ifndef INGOT_PART_PARAMS_H
#define INGOT_PART_PARAMS_H

#include "variants/dropout.h"

namespace INGOT_NAMESPACE {

// In elements, 0 where a tensor repeats.
struct PartStrides {
  Index batch, head, row, col;
};

struct PartParams {
  PartStrides alibi_slopes, bias, mask, sinks, prefix_len;
  Index position_shift;  // of rows among the keys
  DropoutParams dropout;
  int unused;
};

}  // namespace INGOT_NAMESPACE
#endif
