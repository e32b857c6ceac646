// Run-time arguments of the backward kernels for Hopper. Read by hosts and kernels.
#pragma once

#include "cuda/kernels/mma_params.h"

namespace ingot {

/// Kernel statistics(StatisticsParams): what the backward pass wants to know of every query. Both
/// results are [batch * heads][rows_padded].
struct StatisticsParams {
  MatrixView o, lse, dout;
  float* lse_log2;  ///< lse * log2(e); infinity where a row has no weight, or is none
  float* delta;     ///< sum over columns of dout * o; 0 there
  Index heads, seqlen_q;
  Index rows_padded;  ///< of a head: seqlen_q up to a multiple of 128
  Index rows;         ///< batch * heads * rows_padded
};

}  // namespace ingot
