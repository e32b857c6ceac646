// Run-time arguments of kernels/scores_sm90.cuh, read by the host and by NVRTC.
#pragma once

#include "cuda/kernels/params.h"
#include "cuda/kernels/stored_params.h"

namespace ingot {

/// Kernel scores_sm90(ScoresParams, TensorMap q, k, v, dout, p, ds): writes P and dS of the chunk.
///
/// Maps have rank 5, 128-byte swizzle and zero fill: q, k, v and dout over (head_dim, seqlen, head,
/// batch, plane) in boxes of 64 columns by Config::block_m (q, dout) or block_n (k, v) rows; p and
/// ds over (query, key, plane, matrix, 1) in boxes of 64 by 64.
struct ScoresParams {
  ScoreParams score;
  StoredMatrices stored;
  const float* lse_log2;  ///< both [batch * num_heads][stored.rows_padded]: StatisticsParams
  const float* delta;
  FaultWords faults;
  int num_heads;
  int group;          ///< query heads of one head of k
  int matrices;       ///< query heads in this launch
  int query_tiles;    ///< of Config::block_m, of one head
  int key_tiles;      ///< of Config::block_n, of the chunk
  int tiles_at_once;  ///< key tiles that all query tiles go through before the next: those share
                      ///< the L2 cache
};

}  // namespace ingot
