// decode.metal for large head_dim_v: a threadgroup has one split, its simdgroups share the rows.
// Threadgroups: (split, key head and row block, batch).
#include "metal/kernels/own_rows.h"
#include "metal/kernels/shared_rows.h"

namespace ingot {

template <class Config>
inline void decode_wide(ForwardParams p, const device typename Config::q_type* q,
                        const device typename Config::k_type* k,
                        const device typename Config::v_type* v, device float* partial_o,
                        device float* partial_sums, threadgroup uchar* memory,
                        CallParts<Config> parts, Place at) {
  using q_type = typename Config::q_type;
  using DeviceQ = DeviceRows<Config, const q_type, Config::q_strided, true>;
  using Pass = SharedRows<Config, DeviceQ, true>;
  constexpr int rows = Config::rows_per_simdgroup;
  const Index split = at.group.x;
  const Index batch = at.group.z, kv_head = at.group.y / p.row_blocks;
  const int seqlen_q = int(p.score.seqlen_q);
  const int first = int(at.group.y) % p.row_blocks * rows;
  const int rows_there = smaller(p.group * seqlen_q - first, rows);

  typename Pass::Q queries{rows_of<DeviceQ>(q, p.q, batch, kv_head * p.group, seqlen_q),
                           first,
                           Extent{rows_there, Config::head_dim},
                           at.lane,
                           at.simdgroup * 32 + at.index,
                           {memory},
                           0,
                           {}};
  queries.start();
  const auto band = parts.variant().band(p.score, batch);
  const Pairs<Config, true> pairs{p.score,    make_score_factors(p.score),
                                  band,       {first, seqlen_q},
                                  rows_there, {parts, batch, kv_head * p.group, p.num_heads}};
  Pass pass{&queries,
            rows_of<typename Pass::K>(k, p.k, batch, kv_head),
            rows_of<typename Pass::V>(v, p.v, batch, kv_head),
            at.simdgroup,
            pairs,
            {},
            {}};
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
             rows_there);
  if (at.simdgroup == 0) {
    store_sums(pass.softmax, Sums{partial_sums + 2 * first_partial, 2 * p.splits, 1, 0, 0}, at.lane,
               rows_there);
  }
}

}  // namespace ingot

kernel void decode_wide(constant ingot::ForwardParams& params [[buffer(0)]],
                        const device Config::q_type* q [[buffer(1)]],
                        const device Config::k_type* k [[buffer(2)]],
                        const device Config::v_type* v [[buffer(3)]],
                        device float* partial_o [[buffer(11)]],
                        device float* partial_sums [[buffer(12)]], INGOT_PART_BUFFERS,
                        uint3 group [[threadgroup_position_in_grid]],
                        uint3 groups [[threadgroups_per_grid]],
                        ushort simdgroup [[simdgroup_index_in_threadgroup]],
                        ushort lane [[thread_index_in_simdgroup]]) {
  threadgroup uint4 memory[ingot::SharedMemory<Config>::bytes / 16];
  ingot::decode_wide<Config>(
      params, q, k, v, partial_o, partial_sums, reinterpret_cast<threadgroup uchar*>(memory),
      INGOT_PARTS_OF(params),
      ingot::Place{group, groups, short(simdgroup), short(lane), ingot::lane_of(lane)});
}
