// Run-time arguments of the backward kernels for Hopper. Read by hosts and kernels.
#pragma once

#include "cuda/kernels/mma_params.h"
#include "cuda/kernels/stored.h"

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
  int* counters;      ///< of a kernel that follows: they become 0
  int counter_count;
};

/// Kernels backward_stored_sm90 and backward_stored_wide_sm90(StoredParams, TensorMap k, v, q,
/// dout, ds): dk and dv of some keys, and dS of all queries for them, without the factor scale. A
/// block of threads takes one tile of keys, the query heads of its group in turn.
///
/// Maps have rank 5 and 128-byte swizzle: k, v, q, dout over (head_dim, seqlen, head, batch, 1) in
/// boxes of 64 columns by 64 rows (of k and v: by the keys of a tile); ds over the matrices of
/// stored.h in boxes of 64 by 64.
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
  int group;         ///< query heads of one head of k
  int tiles;         ///< of keys, of one head, in this launch
  int matrix_first;  ///< where this launch's matrices begin
  int stores_ds;     ///< 0: dq is not wanted
};

/// Kernel backward_relay_sm90(StoredParams, ProductParams, RelayParams, TensorMap k, v, q, dout,
/// ds, k_rows): the whole backward pass in one grid. Blocks take units of work in the order of a
/// ticket: tiles of keys of a chunk (some heads, or a piece of one head's keys), and behind them,
/// `lag` chunks later, tiles of dq, whose products read what those stored. A unit waits only for
/// units with earlier tickets, so the grid may have any number of blocks. StoredParams and
/// ProductParams are those of the first chunk.
struct RelayParams {
  int* ticket;     ///< starts at 0, as all counters
  int* keys_done;  ///< [chunks]: units of keys
  int* dq_done;    ///< [chunks]: units of dq
  int chunks;
  int slots;        ///< chunks whose matrices the workspace holds
  int lag;          ///< at most slots
  int dq_in_turn;   ///< units of dq before one of keys, at the start of a chunk
  int heads;        ///< of k, in a chunk, the last may have fewer
  int heads_total;  ///< batch * num_heads_kv
  int pieces;       ///< of the keys of a head
  int keys;         ///< of a chunk
  int dq_tiles;     ///< units of dq of a chunk
};

}  // namespace ingot
