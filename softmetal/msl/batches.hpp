// Matrix products that a thread makes one after another without looking at a result between them.
// All threads of a simdgroup meet for a product, which costs more than the product; these share one
// meeting.
#pragma once

#include <string>

#include "ir.hpp"

namespace softmetal::msl {

/// Optimised IR with runs of calls of softmetal_mma made into calls of softmetal_mma_batch.
std::string with_batches(const IrModule& module);

}  // namespace softmetal::msl
