// The host's side of kernels/params.h: the same structs, as MSL lays them out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "variants/variant.h"

namespace ingot::metal {

struct StrideParams {
  std::int64_t batch, head, row, col;
};

struct ForwardParams {
  ScoreParams score;
  StrideParams q, k, v, o;
  StrideParams lse;
  std::int64_t split_length;
  std::int32_t num_heads;
  std::int32_t group;
  std::int32_t splits;
  std::int32_t row_blocks;
  PartParams parts;
};

struct CombineParams {
  StrideParams o, lse;
  std::int64_t seqlen_q;
  std::int32_t num_heads;
  std::int32_t splits;
  float factor;
  std::int32_t unused;
};

struct BackwardParams {
  ScoreParams score;
  StrideParams q, k, v, o, dout;
  StrideParams lse, delta;
  StrideParams dq, dk, dv;
  std::int32_t num_heads;
  std::int32_t group;
  std::int32_t has_dk, has_dv;
  PartParams parts;
  StrideParams dbias, bias_shape;
  std::int64_t dsinks_step;
  std::int64_t batch;
};

static_assert(sizeof(ScoreParams) == 40);
static_assert(sizeof(PartParams) == 192);
static_assert(sizeof(ForwardParams) == 416);
static_assert(sizeof(CombineParams) == 88);
static_assert(sizeof(BackwardParams) == 648);

}  // namespace ingot::metal
