// Run-time arguments of the kernels for sm_80 and newer: everything that may change from call to
// call. Read by hosts and kernels. Strides in elements; all four of them [batch, head, row, col].
#pragma once

#include "algorithm/params.h"
#include "cuda/kernels/fault_params.h"
#include "cuda/kernels/part_views.h"

namespace ingot {

struct MatrixView {
  void* data;       // null: not wanted (outputs)
  Index stride[4];  // of lse the last is not looked at
  int vector;       // 1: col stride 1, data and all other strides in multiples of 16 bytes
};

// The softmax of one piece of the keys of a row.
struct alignas(8) PieceSums {
  float max, sum;
};

// grid.x = row tiles * column slices * key splits * heads * batch, in this order of change.
struct MmaForwardParams {
  MatrixView q, k, v, o, lse;
  ScoreParams score;
  Index heads;        // query heads; the grid counts key/value heads where Config::packed
  Index group;        // query heads per key/value head
  Index row_tiles;    // of Config::block_m rows; rows are (query, head of the group) if packed
  int column_slices;  // of Config::columns columns of o
  int splits;         // pieces of the keys; > 1: results go to the two below, for combine
  float* partial_o;   // [batch, head, query, split, head_dim_v], of each piece's own softmax
  // [batch, head, query, split]: the largest score of the piece, without its last factor, and the
  // sum of its weights. Not their lse: beyond some 10^4 that would round the sum away.
  PieceSums* partial_sums;
  const int* run_if;  // null: run; else only where it is not 0
  // decode_sm90 with splits. Null: the kernel combine merges. Else a number for each row tile of a
  // head, 0: the block that counts it up last merges, and leaves 0.
  unsigned* tickets;
  FaultWords faults;  // of decode_sm90
  PartViews parts;
};

// grid.x = ceil(rows / Config::block_m), a row being (batch, head, query).
struct CombineParams {
  const float* partial_o;
  const PieceSums* partial_sums;
  MatrixView o, lse;
  float factor;  // of the largest scores: outer_factor of algorithm/score.h
  Index rows, heads, seqlen_q;
  int splits;
  const int* run_if;  // as above
};

// What the kernel delta finds of a query.
struct RowStatistics {
  float shift;     // what values are less in the exponent of P; infinity: a row without weight
  float log2_sum;  // what exponents are less then; 0 but in large rows
  float delta;     // sum of dout * o
};

// delta: grid.x = ceil(batch * heads * seqlen_q / Config::warps), a warp a row.
// dq: grid.x = row tiles * column slices * heads * batch.
// dkv: grid.x = key tiles * column slices * heads_kv * batch.
// dbias: grid.x = tiles of Config::block_m rows * tiles of Config::block_n cols * heads * batch,
// all of them extents of dbias. dsinks: grid.x = heads.
struct MmaBackwardParams {
  MatrixView q, k, v, o, lse, dout, dq, dk, dv;
  RowStatistics* statistics;  // [batch, head, query]
  ScoreParams score;
  Index batch, heads, group;
  Index tiles;        // of Config::block_m queries (dq) or keys (dkv)
  int column_slices;  // of Config::columns columns of dq, or of dk and of dv
  const int* run_if;  // null: run; else only where it is not 0
  PartViews parts;
  MatrixView dbias, dsinks;
  Index bias_shape[4];
};

}  // namespace ingot
