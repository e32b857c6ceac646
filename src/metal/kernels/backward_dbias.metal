// dbias = P (keep * dP - delta), summed over what bias has once for all. A threadgroup owns a tile
// of dbias and walks over all pairs of all heads that map onto it, whose scores it computes once
// more: no atomics, always the same bits, no memory beside dbias. Plain loops, a pair a thread.
// Threadgroups: (32 cols, 8 rows, batch and head) of dbias.
#include "metal/kernels/backward_score.h"
#include "metal/kernels/row_product.h"

namespace ingot {

constexpr constant int bias_cols = 32, bias_rows = 8;

/// Indices of a dimension that add to one of dbias, or those that a thread takes.
struct Walk {
  Index begin, end, step;
};
/// all: of the pairs; member: of `step` that share an extent of 1.
inline Walk walk_of(Index extent, Index all, Index first, Index member, Index step) {
  if (extent == 1) return Walk{member, all, step};
  const Index own = first + member;
  return Walk{own, own < all ? own + 1 : own, 1};
}

/// The operands of one head.
template <class Config>
struct BiasPairs {
  DeviceRows<Config, const typename Config::q_type, Config::q_strided> q;
  DeviceRows<Config, const typename Config::k_type, Config::k_strided> k;
  DeviceRows<Config, const typename Config::v_type, Config::v_strided> v;
  DeviceRows<Config, const typename Config::dout_type, Config::dout_strided> dout;
  HeadTerms<Config> rows;
  ScoreParams score;
  typename BandOf<Config>::type band;

  float gradient(Index row, Index col) const {
    if (Config::masked && !visible(band, row, col)) return 0.0f;
    const RowParts<Config> parts = rows.parts.row(row);
    if (!parts.shows(col)) return 0.0f;
    const float s = part_of_product<Config::head_dim, 4, 4>(q, int(row), k, int(col), 0);
    const float dp = part_of_product<Config::head_dim_v, 4, 4>(dout, int(row), v, int(col), 0);
    const ScoreFactors factors = make_score_factors(score);
    const float weight = pair_of<Config>(score, factors, s, rows.of(row), true, parts, col).p;
    const float kept = rows.parts.weighed(dp, rows.parts.keeps(row, col));
    return score_gradient(weight, kept, rows.delta(row), true);
  }

  float sum(Walk row, Walk col) const {
    float sum = 0.0f;
    for (Index r = row.begin; r < row.end; r += row.step) {
      for (Index c = col.begin; c < col.end; c += col.step) sum += gradient(r, c);
    }
    return sum;
  }
};

/// The sum of `count` numbers, `step` apart.
inline float sum_of(const threadgroup float* x, int count, int step) {
  float sum = 0.0f;
  for (int i = 0; i < count; ++i) sum += x[i * step];
  return sum;
}

}  // namespace ingot

using namespace ingot;

kernel void backward_dbias(constant BackwardParams& p [[buffer(0)]],
                           const device Config::q_type* q [[buffer(1)]],
                           const device Config::k_type* k [[buffer(2)]],
                           const device Config::v_type* v [[buffer(3)]],
                           const device Config::dout_type* dout [[buffer(6)]],
                           const device float* delta [[buffer(7)]], INGOT_PART_BUFFERS,
                           device Config::dbias_type* dbias [[buffer(18)]],
                           uint3 group [[threadgroup_position_in_grid]],
                           uint thread_index [[thread_index_in_threadgroup]]) {
  using Pairs = BiasPairs<Config>;
  threadgroup float sums[bias_rows * bias_cols];
  const int x = int(thread_index) % bias_cols, y = int(thread_index) / bias_cols;
  const Index first_col = Index(group.x) * bias_cols, first_row = Index(group.y) * bias_rows;
  const Index bias_batch = group.z / p.bias_shape.head, bias_head = group.z % p.bias_shape.head;
  const Walk batches = walk_of(p.bias_shape.batch, p.batch, bias_batch, 0, 1);
  const Walk heads = walk_of(p.bias_shape.head, p.num_heads, bias_head, 0, 1);
  const Walk rows = walk_of(p.bias_shape.row, p.score.seqlen_q, first_row, y, bias_rows);
  const Walk cols = walk_of(p.bias_shape.col, p.score.seqlen_k, first_col, x, bias_cols);

  float sum = 0.0f;
  for (Index b = batches.begin; b < batches.end; ++b) {
    for (Index h = heads.begin; h < heads.end; ++h) {
      const Index h_kv = h / p.group;
      const Pairs pairs{rows_of<decltype(Pairs::q)>(q, p.q, b, h),
                        rows_of<decltype(Pairs::k)>(k, p.k, b, h_kv),
                        rows_of<decltype(Pairs::v)>(v, p.v, b, h_kv),
                        rows_of<decltype(Pairs::dout)>(dout, p.dout, b, h),
                        terms_of<Config>(p, delta, INGOT_PARTS_OF(p), b, h),
                        p.score,
                        INGOT_PARTS_OF(p).variant().band(p.score, b)};
      sum += pairs.sum(rows, cols);
    }
  }
  sums[thread_index] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const bool one_row = p.bias_shape.row == 1, one_col = p.bias_shape.col == 1;
  if (one_row && y == 0) sums[x] = sum_of(sums + x, bias_rows, bias_cols);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const Index row = first_row + y, col = first_col + x;
  if (row >= p.bias_shape.row || col >= p.bias_shape.col) return;
  const threadgroup float* own = sums + y * bias_cols;
  const float result = one_col ? sum_of(own, bias_cols, 1) : own[x];
  device Config::dbias_type* to = dbias + bias_batch * p.dbias.batch + bias_head * p.dbias.head;
  to[row * p.dbias.row + col * p.dbias.col] = to_memory<Config::dbias_type>(result);
}
