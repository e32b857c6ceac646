// The matrices P and dS that backward kernels keep in the workspace: how they lie there, and which
// of their tiles are written. Read by hosts and kernels.
//
// [matrix][plane][keys_padded][rows_padded] of 16 bits, the queries contiguous. A matrix belongs to
// a query head; its keys are a chunk of the sequence from key_first on. They are written and read
// in tiles of 64 keys by 64 queries. Only tiles that hold a visible pair are written, and nothing
// else is read.
#pragma once

#include "algorithm/params.h"

namespace ingot {

constexpr int stored_tile = 64;

// A group of matrices, in what a call's kernels share.
struct StoredMatrices {
  int head_first;   // batch * num_heads + head of the first matrix
  int key_first;    // of the chunk, a multiple of 128
  int keys;         // of the chunk, within seqlen_k
  int rows_padded;  // seqlen_q rounded up to 128: a query there or beyond is outside the matrix
};

}  // namespace ingot
