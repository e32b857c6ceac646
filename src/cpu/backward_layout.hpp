// What backward_plan.cpp decides and backward-inl.h runs: the scratch of one worker, and one piece
// of work.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/plan.hpp"
#include "core/problem.hpp"
#include "cpu/parts.hpp"

namespace ingot {

/// Where a worker's tiles lie in its scratch. Sizes and offsets in floats, every offset a multiple
/// of 64 bytes. Rows are padded to whole vectors of the widest target, so one layout serves all of
/// them.
struct BackwardLayout {
  std::int64_t block_m = 0, block_n = 0;
  std::int64_t ld_q = 0, ld_v = 0;  ///< a row of head_dim (q, k, dk) or head_dim_v (v, dout, dv)
  std::int64_t ld_m = 0;            ///< a row of block_m query rows
  std::int64_t chunk = 0;           ///< keys the accumulators dk and dv hold, a multiple of block_n

  std::int64_t q = 0, q_t = 0, dq_t = 0, dout = 0,
               dout_t = 0;  ///< of the block of query rows; _t: [head_dim][block_m]
  std::int64_t lse = 0, lse_low = 0, delta = 0;  ///< [block_m]; lse + lse_low, base 2, is lse
  std::int64_t seen_first = 0, seen_end = 0;     ///< [block_m]: what the rows see of the tile
  std::int64_t ones = 0;                         ///< [block_m]
  std::int64_t k = 0, v = 0;                     ///< of the tile's keys
  std::int64_t p = 0, ds = 0;                    ///< the tile, [block_n][block_m]
  PartTilesLayout parts;                         ///< likewise
  std::int64_t dscore = -1;                      ///< likewise, sums of dbias; -1: no bias
  std::int64_t dk = 0, dv = 0;                   ///< [chunk][head_dim], f32
  std::int64_t total = 0;
};

/// Floats per row for `elements`: whole vectors of 16, an odd number of them, so that consecutive
/// rows of a tile do not fall into the same few sets of the L1 cache.
constexpr std::int64_t padded_row(std::int64_t elements) {
  const std::int64_t vectors = std::max<std::int64_t>((elements + 15) / 16, 1);
  return 16 * (vectors | 1);
}

BackwardLayout make_backward_layout(const Problem& problem, std::int64_t block_m,
                                    std::int64_t block_n, std::int64_t chunk);

/// The layout a pass was planned with.
BackwardLayout backward_layout(const Problem& problem, const PassPlan& pass);

/// The backward pass makes weights as exp(score - lse). An lse of more than this, rounded to f32,
/// is off by 2^-18 or more, and so are they: from here on they are made from sums of its own.
constexpr std::int64_t large_lse = 128;

inline bool is_large_lse(float lse) {
  return std::isfinite(lse) && std::fabs(lse) > static_cast<float>(large_lse);
}

/// lse of every row in two numbers, base 2, at the start of the workspace: a plane of the first and
/// one of the second. They are made only where some |lse| is large (backward_lse-inl.h). Without
/// keys there is none.
constexpr std::int64_t split_lse_plane(const Problem& p) {
  if (p.seqlen_k == 0) return 0;
  return (p.batch * p.num_heads * p.seqlen_q + 15) / 16 * 16;
}
constexpr std::int64_t split_lse_floats(const Problem& p) { return 2 * split_lse_plane(p); }
constexpr std::int64_t split_lse_index(const Problem& p, std::int64_t batch, std::int64_t head,
                                       std::int64_t row) {
  return (batch * p.num_heads + head) * p.seqlen_q + row;
}

/// The arguments of every unit of a call.
struct BackwardCall {
  const Problem& problem;
  const BackwardArgs& args;
  const BackwardLayout& layout;
  const float* split_lse = nullptr;  ///< null: lse as it was given is exact enough
};

/// One unit: the tiles of query heads x query rows x keys of one (batch, kv head), and which
/// gradients it makes. Rows begin at a multiple of block_m and keys at a multiple of block_n. With
/// dkv its keys fit one accumulator.
struct BackwardUnit {
  std::int64_t batch = 0, head_kv = 0;
  std::int64_t head_first = 0, head_end = 0;
  std::int64_t row_first = 0, row_end = 0;
  std::int64_t col_first = 0, col_end = 0;
  bool dq = false, dkv = false;
  bool dbias = false;  ///< straight into the tensor: bias is not broadcast
};

}  // namespace ingot
