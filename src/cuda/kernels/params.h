// Run-time arguments of the CUDA kernels, read by the host and by NVRTC.
#pragma once

#include "algorithm/params.h"
#include "cuda/kernels/fault_params.h"
#include "cuda/kernels/part_views.h"

namespace ingot {

/// A tensor map as the driver encodes it.
struct alignas(64) TensorMap {
  unsigned long long words[16];
};

/// Kernel forward_sm90(ForwardParams, TensorMap q, TensorMap k, TensorMap v). Strides in elements.
///
/// Maps have rank 5, 128-byte swizzle and zero fill: k, v over (head_dim, seqlen, head, batch,
/// plane), in boxes of 64 columns by block_n / cluster rows; q too, in boxes of 64 rows, but
/// (head_dim, head of the group, seqlen, head_kv, batch), 64 by group by 64 / group, where
/// Config::packed.
struct ForwardParams {
  ScoreParams score;
  void* o;
  float* lse;         ///< null: not wanted
  Index o_stride[4];  ///< batch, head, row, column
  Index lse_stride[3];
  int num_heads;      ///< of q; of k where Config::packed
  int group;          ///< query heads of one head of k
  int heads_total;    ///< batch * num_heads
  int heads_at_once;  ///< heads whose K and V share the L2 cache: their tiles go longest first
  int tiles;          ///< of block_m * cluster rows, of one head
  int units;          ///< tiles * heads_total, what clusters of blocks take in turn
  FaultWords faults;
  int o_vector;  ///< columns of o one aligned store may write: 8 (16-bit types), 2 or 1
  PartViews parts;
};

/// Kernel split(SplitParams): a tensor of f32 to planes of bf16, each [batch, head, seqlen,
/// dim_padded] and packed, zeros past dim. A thread does 8 columns.
struct SplitParams {
  const float* from;  ///< null: only clears has_special
  int* has_special;   ///< becomes 1 where there is an Inf or NaN, or nearly: no sum of terms is one
  void* to;
  Index stride[4];  ///< of `from`
  Index rows;       ///< seqlen of every head, from head_first on
  Index seqlen;
  Index plane;  ///< elements of a plane
  int num_heads;
  int head_first;  ///< batch * num_heads + head
  int dim;
  int dim_padded;  ///< the next multiple of 8
};

}  // namespace ingot
