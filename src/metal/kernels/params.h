// Run-time arguments of the kernels: what changes every call. src/metal/params.hpp is the host's
// side of it; strides are in elements of [batch, head, seqlen, head_dim].
//
// Buffers: params 0, q 1, k 2, v 3, o 4, lse 5, dout 6, delta 7, dq 8, dk 9, dv 10, partial_o 11,
// partial_sums 12, those of INGOT_PART_BUFFERS 13 to 17, dbias 18, dsinks 19. Every one that a
// kernel names is bound; what Config turns off (lse, a part) takes any buffer and stays untouched.
#pragma once
#include "metal/kernels/dialect.h"

#include "algorithm/scaled_softmax.h"
#include "variants/variant.h"

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
  PartParams parts;
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
  PartParams parts;
  Strides dbias, bias_shape;  // bias_shape: extents, 1 where bias is broadcast
  Index dsinks_step;          // from a head to the next
  Index batch;
};

// As on the host.
static_assert(sizeof(ForwardParams) == 416, "src/metal/params.hpp");
static_assert(sizeof(CombineParams) == 88, "src/metal/params.hpp");
static_assert(sizeof(BackwardParams) == 648, "src/metal/params.hpp");

/// What the parts of a call read.
template <class Config>
struct CallParts {
  constant PartParams* params;
  PartAddresses<Config> from;

  Variant<Config, constant PartParams&> variant() const { return {*params, from}; }
};

}  // namespace ingot

// Arguments of every kernel that takes parts, and what they are to it.
#define INGOT_PART_BUFFERS                                   \
  const device float *alibi_slopes [[buffer(13)]],           \
      const device Config::bias_type *bias [[buffer(14)]],   \
      const device uchar *mask [[buffer(15)]],               \
      const device Config::sinks_type *sinks [[buffer(16)]], \
      const device int *prefix_len [[buffer(17)]]
#define INGOT_PARTS_OF(params)                                              \
  ingot::CallParts<Config> {                                                \
    &params.parts, { alibi_slopes, bias, mask, sinks, prefix_len, nullptr } \
  }
