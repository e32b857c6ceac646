// Run-time arguments of the backward kernels for Hopper. Read by hosts and kernels.
#pragma once

#include "cuda/kernels/mma_params.h"
#include "cuda/kernels/stored_params.h"

namespace ingot {

/// From delta to the sums of large rows, in numbers: the bytes between them tell which there are.
INGOT_FN Index log2_sums_behind(Index rows) { return rows + rows / 32; }

/// Kernel statistics(StatisticsParams): what the backward pass wants to know of every query. The
/// results are [batch * heads][rows_padded].
struct StatisticsParams {
  MatrixView q, k, o, lse, dout;
  ScoreParams score;
  float* lse_log2;  ///< as large_rows.cuh stores it; infinity where a row has no weight, or is none
  float* delta;     ///< sum over columns of dout * o; 0 there
  Index heads, group;
  Index rows_padded;  ///< of a head: seqlen_q up to a multiple of 128
  Index rows;         ///< batch * heads * rows_padded
  int* turns;         ///< null, or FusedParams::turns, which become 0
};

/// A tensor that is written. Strides in elements: batch, head, row, column.
struct OutputView {
  void* data;  ///< null: not wanted
  Index stride[4];
  int vector;  ///< columns that one aligned store may write: 8 (16-bit types), 2 or 1
};

/// Kernel backward_fused_sm90(FusedParams, TensorMap q, k, v, dout). Maps have rank 5 (head_dim,
/// seqlen, head, batch, 1), 128-byte swizzle and zero fill, in boxes of 64 columns by 64 rows (q,
/// dout) or 128 (k, v). grid.x = key_blocks * heads.
struct FusedParams {
  ScoreParams score;
  OutputView dq, dk, dv;
  const float* lse_log2;  ///< of StatisticsParams
  const float* delta;
  float* sums;  ///< [batch * num_heads, from head_first's first on][query block][64 * columns]
  int* turns;   ///< [batch * num_heads][query block]: key blocks that have added to the sum
  int num_heads, num_heads_kv;
  int group;          ///< query heads of one key head
  int head_first;     ///< of batch * num_heads_kv, that this launch begins with
  int heads;          ///< key heads of this launch
  int heads_at_once;  ///< whose key blocks take turns in the grid
  int key_blocks;     ///< of 128 keys, of one head
  int query_blocks;   ///< of 64 queries, up to a whole 128 queries
  FaultWords faults;
  int last_first;  ///< key blocks go from the last to the first, queries the other way round
};

/// Kernels backward_stored_sm90 and backward_stored_wide_sm90(StoredParams, TensorMap k, v, q,
/// dout, ds): dk and dv of some keys, and dS of all queries for them, without the factor scale. A
/// block of threads takes one tile of keys, the query heads of its group in turn.
///
/// Maps have rank 5 and 128-byte swizzle: k, v, q, dout over (head_dim, seqlen, head, batch, 1) in
/// boxes of 64 columns by 64 rows (of k and v: by the keys of a tile); ds over the matrices of
/// stored_params.h in boxes of 64 by 64.
struct StoredParams {
  ScoreParams score;
  StoredMatrices stored;
  const float* lse_log2;  ///< of StatisticsParams
  const float* delta;
  void* dk;  ///< null: not wanted
  void* dv;
  Index dk_stride[4];
  Index dv_stride[4];
  int dk_vector;  ///< columns one aligned store may write: 8 (16-bit types), 2 or 1
  int dv_vector;
  int num_heads_kv;
  int group;      ///< query heads of one head of k
  int tiles;      ///< of keys, of one head, in this launch
  int stores_ds;  ///< 0: dq is not wanted
  FaultWords faults;
};

}  // namespace ingot
