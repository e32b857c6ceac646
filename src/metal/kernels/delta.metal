// What the backward kernels want to know of every query row, in three planes (params.h). delta is
// the sum of dout * o, which the softmax's gradient subtracts in every row. Eight threads a row.
#include "metal/kernels/backward_tile.h"
#include "metal/kernels/pairs.h"
#include "metal/kernels/row_product.h"

#include "algorithm/large_rows.h"

namespace ingot {

/// The sum of a large row's weights, of which each of its threads takes every eighth.
template <class Config, class Q, class K>
inline RowSum sum_of_row(ScoreParams score, HeadParts<Config> parts, Q q, K k, Index row,
                         int part) {
  const ScoreFactors factors = make_score_factors(score);
  const float factor = outer_score<Config>(score, factors);
  const auto band = parts.call.variant().band(score, parts.batch);
  const RowParts<Config> own = parts.row(row);
  RowSum sum{-INFINITY, 0.0f};
  const Index end = col_end(band, row);
  for (Index col = col_begin(band, row) + part; col < end; col += 8) {
    if (!own.shows(col)) continue;
    const float s = part_of_product<Config::head_dim, 4, 4>(q, int(row), k, int(col), 0);
    const float t = Config::softcap ? tanh_(s * factors.inner) : s;
    sum.add(natural_score<Config>(t, factor, own, col));
  }
  if (Config::sinks && part == 0) sum.add(parts.sink());
  INGOT_UNROLL for (ushort i = 1; i < 8; i *= 2) {
    const float max = metal::simd_shuffle_xor(sum.max, i);
    sum.add(RowSum{max, metal::simd_shuffle_xor(sum.sum, i)});
  }
  return sum;
}

}  // namespace ingot

using namespace ingot;

kernel void delta(constant BackwardParams& p [[buffer(0)]],
                  const device Config::q_type* q [[buffer(1)]],
                  const device Config::k_type* k [[buffer(2)]],
                  const device Config::o_type* o [[buffer(4)]],
                  const device float* lse [[buffer(5)]],
                  const device Config::dout_type* dout [[buffer(6)]],
                  device float* out [[buffer(7)]], INGOT_PART_BUFFERS,
                  uint3 group [[threadgroup_position_in_grid]],
                  uint thread_index [[thread_index_in_threadgroup]]) {
  using Q = DeviceRows<Config, const Config::q_type, Config::q_strided>;
  using K = DeviceRows<Config, const Config::k_type, Config::k_strided>;
  using O = DeviceRows<Config, const Config::o_type, Config::o_strided>;
  using DO = DeviceRows<Config, const Config::dout_type, Config::dout_strided>;
  const Index b = group.z, h = group.y;
  const Index row = Index(group.x) * Config::block_m + thread_index / 8;
  const int part = int(thread_index % 8);
  // Whole rows leave, and with them whole groups of eight that add up.
  const bool there = row < p.score.seqlen_q;
  float sum = 0.0f;
  if (there) {
    sum = part_of_product<Config::head_dim_v, 4, 32>(
        rows_of<O>(o, p.o, b, h), int(row), rows_of<DO>(dout, p.dout, b, h), int(row), 4 * part);
  }
  sum += metal::simd_shuffle_xor(sum, 1);
  sum += metal::simd_shuffle_xor(sum, 2);
  sum += metal::simd_shuffle_xor(sum, 4);
  if (!there) return;
  const float given = lse[b * p.lse.batch + h * p.lse.head + row * p.lse.row];
  float shift = given == -INFINITY ? INFINITY : given, log2_sum = 0.0f;
  if (is_large_lse(given)) {
    const K keys = rows_of<K>(k, p.k, b, h / p.group);
    const HeadParts<Config> parts{INGOT_PARTS_OF(p), b, h, p.num_heads};
    log2_sum = sum_of_row<Config>(p.score, parts, rows_of<Q>(q, p.q, b, h), keys, row, part).log2();
    shift = heaviest_of(given, log2_sum);
  }
  if (part == 0) {
    device float* const at = out + b * p.delta.batch + h * p.delta.head + row * p.delta.row;
    at[0] = sum, at[p.delta.col] = shift, at[2 * p.delta.col] = log2_sum;
  }
}
