// Run-time arguments of the kernels: what changes every call. src/metal/params.hpp is the host's
// side of it; strides are in elements of [batch, head, seqlen, head_dim].
//
// Buffers: params 0, q 1, k 2, v 3, o 4, lse 5, dout 6, delta 7, dq 8, dk 9, dv 10, partial_o 11,
// partial_sums 12. Every one that a kernel names is bound; without Config::has_lse, index 5 takes
// any buffer and stays untouched.
#pragma once
#include "metal/kernels/dialect.h"

#include "algorithm/params.h"

namespace ingot {

struct Strides {
  Index batch, head, row, col;
};

struct ForwardParams {
  ScoreParams score;
  Strides q, k, v, o;
  Strides lse;         // col unused
  Index split_length;  // keys of one split, a multiple of Config::block_n
  int num_heads;
  int group;       // num_heads / num_heads_kv
  int splits;      // decode: pieces of the keys
  int row_blocks;  // decode: threadgroups over the group * seqlen_q rows that share keys
};

// partial_o is f32 [batch, num_heads, seqlen_q, splits, head_dim_v], partial_sums [..., splits, 2]:
// the largest score without its last factor, and the sum of weights. Both are packed.
struct CombineParams {
  Strides o, lse;
  Index seqlen_q;
  int num_heads;
  int splits;
  float factor;  // outer_factor of algorithm/scaled_softmax.h
  int unused;
};

struct BackwardParams {
  ScoreParams score;
  Strides q, k, v, o, dout;
  Strides lse;  // col unused
  // Of three planes in the workspace, col from one to the next: delta, what values are less in the
  // exponent of P (inf: a row without weight), and what their exponents are less then.
  Strides delta;
  Strides dq, dk, dv;
  int num_heads;
  int group;
  int has_dk;  // wanted, not 0
  int has_dv;
};

// As on the host.
static_assert(sizeof(ForwardParams) == 224, "src/metal/params.hpp");
static_assert(sizeof(CombineParams) == 88, "src/metal/params.hpp");

}  // namespace ingot
