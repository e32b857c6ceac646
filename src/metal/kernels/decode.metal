// Attention of few query rows over many keys. The rows of all heads that share keys are packed into
// one row block, so that K and V are read once; the keys are cut into splits, one a simdgroup.
// Their partial results are put together by combine.metal. Threadgroups: (simdgroups of splits, key
// head and row block, batch).
#include "metal/kernels/own_rows.h"

namespace ingot {

template <class Config>
inline void decode(ForwardParams p, const device typename Config::q_type* q,
                   const device typename Config::k_type* k, const device typename Config::v_type* v,
                   device float* partial_o, device float* partial_sums, CallParts<Config> parts,
                   Place at) {
  using q_type = typename Config::q_type;
  using Q =
      Queries<Config, DeviceRows<Config, const q_type, Config::q_strided, true>, Config::cache_lhs>;
  using Keys = DirectKeys<Config>;
  constexpr int rows = Config::rows_per_simdgroup;
  const Index split = Index(at.group.x) * Config::simdgroups + at.simdgroup;
  if (split >= p.splits) return;
  const Index batch = at.group.z, kv_head = at.group.y / p.row_blocks;
  const int seqlen_q = int(p.score.seqlen_q);
  const int first = int(at.group.y) % p.row_blocks * rows;
  const int rows_there = smaller(p.group * seqlen_q - first, rows);

  Q queries{rows_of<typename Q::Source>(q, p.q, batch, kv_head * p.group, seqlen_q),
            Extent{rows_there, Config::head_dim},
            at.lane,
            first,
            {}};
  queries.start();
  const auto band = parts.variant().band(p.score, batch);
  const Pairs<Config, true> pairs{p.score,    make_score_factors(p.score),
                                  band,       {first, seqlen_q},
                                  rows_there, {parts, batch, kv_head * p.group, p.num_heads}};
  Keys keys;
  keys.k = rows_of<typename Keys::Shape::K>(k, p.k, batch, kv_head);
  keys.v = rows_of<typename Keys::Shape::V>(v, p.v, batch, kv_head);
  OwnRows<Config, Keys, Q, true> pass{&keys, &queries, pairs, {}, {}};
  const Index visible_begin = col_begin(band, 0) / Config::block_n * Config::block_n;
  const Index begin = visible_begin + split * p.split_length;
  pass.run(begin, clamp_index(begin + p.split_length, 0, col_end(band, seqlen_q - 1)), 0,
           seqlen_q - 1, split == 0);

  const Index first_partial =
      ((batch * p.num_heads + kv_head * p.group) * seqlen_q + first) * p.splits + split;
  using O = Rows<float, device float*, Index, Config::head_dim_v % 4 == 0 ? 4 : 1>;
  using Sums = Rows<float, device float*, Index, 1>;
  pass.store(O{partial_o + first_partial * Config::head_dim_v, Index(p.splits) * Config::head_dim_v,
               1, 0, 0},
             Extent{rows_there, Config::head_dim_v});
  store_sums(pass.softmax, Sums{partial_sums + 2 * first_partial, 2 * p.splits, 1, 0, 0}, at.lane,
             rows_there);
}

}  // namespace ingot

kernel void decode(constant ingot::ForwardParams& params [[buffer(0)]],
                   const device Config::q_type* q [[buffer(1)]],
                   const device Config::k_type* k [[buffer(2)]],
                   const device Config::v_type* v [[buffer(3)]],
                   device float* partial_o [[buffer(11)]],
                   device float* partial_sums [[buffer(12)]], INGOT_PART_BUFFERS,
                   uint3 group [[threadgroup_position_in_grid]],
                   uint3 groups [[threadgroups_per_grid]],
                   ushort simdgroup [[simdgroup_index_in_threadgroup]],
                   ushort lane [[thread_index_in_simdgroup]]) {
  ingot::decode<Config>(
      params, q, k, v, partial_o, partial_sums, INGOT_PARTS_OF(params),
      ingot::Place{group, groups, short(simdgroup), short(lane), ingot::lane_of(lane)});
}
