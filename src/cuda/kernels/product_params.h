// Run-time arguments of kernels/product_sm90.cuh, read by the host and by NVRTC.
#pragma once

#include "cuda/kernels/params.h"
#include "cuda/kernels/stored_params.h"

namespace ingot {

/// Kernel product_sm90(ProductParams, TensorMap a, TensorMap b): out = factor * A B for one of
///
///   dq: rows are queries, A = dS,   B = k      dk: rows are keys, A = dS^T, B = q
///                                              dv: rows are keys, A = P^T,  B = dout
///
/// Maps have rank 5, 128-byte swizzle, zero fill and boxes of 64 by 64: a over the matrices (query,
/// key, plane, matrix, 1), b over (head_dim, seqlen, head, batch, plane). Strides in elements.
struct ProductParams {
  ScoreParams score;
  StoredMatrices stored;
  void* out;
  Index out_stride[4];  ///< batch, head, row, column
  const float* add;     ///< sums so far, null: none. Both [head of this launch][row][partial_pitch]
  float* partial;       ///< where the sums go instead of to `out`; null: this is the last chunk
  Index partial_head;   ///< elements of a head in them
  FaultWords faults;    ///< A is garbage if they say so
  int partial_pitch;
  int dim;         ///< columns of out and B
  int out_vector;  ///< columns of out one aligned store may write: 8 (16-bit types), 2 or 1
  float factor;
  int num_heads;      ///< of q
  int group;          ///< query heads of one head of k
  int sum_first;      ///< where rows are keys, the heads of the group that are summed over: first
  int sum_heads;      ///< and how many; else 0 and 1
  int head_first;     ///< first head of out, batch * heads of out + head
  int heads;          ///< of out, in this launch
  int heads_at_once;  ///< heads whose B shares the L2 cache: their tiles go longest first
  int tiles;          ///< of Config::block_m rows, of one head
  int slices;         ///< of Config::columns columns
  int units;          ///< tiles * slices * heads, what blocks take in turn
};

}  // namespace ingot
