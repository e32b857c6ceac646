// Attention, forward, large head_dim_v: the simdgroups of a threadgroup share block_m query rows.
// Threadgroups: (row block, head, batch).
#include "metal/kernels/own_rows.h"
#include "metal/kernels/shared_rows.h"

namespace ingot {

template <class Config>
inline void forward_wide(ForwardParams p, const device typename Config::q_type* q,
                         const device typename Config::k_type* k,
                         const device typename Config::v_type* v, device typename Config::o_type* o,
                         device float* lse, threadgroup uchar* memory, CallParts<Config> parts,
                         Place at) {
  using q_type = typename Config::q_type;
  using o_type = typename Config::o_type;
  using DeviceQ = DeviceRows<Config, const q_type, Config::q_strided>;
  using O = DeviceRows<Config, o_type, Config::o_strided>;
  using Lse = Rows<float, device float*, Index, 1>;
  using Pass = SharedRows<Config, DeviceQ, false>;
  constexpr int rows = Config::rows_per_simdgroup;
  const Index batch = at.group.z, head = at.group.y, kv_head = head / p.group;
  // The longest rows of a causal mask start first.
  const Index row_block = Config::masked ? at.groups.x - 1 - at.group.x : at.group.x;
  const Index first = row_block * rows;
  const Index last = clamp_index(first + rows, 1, p.score.seqlen_q) - 1;
  const int rows_there = int(clamp_index(p.score.seqlen_q - first, 0, rows));

  typename Pass::Q queries{rows_of<DeviceQ>(q, p.q, batch, head).from(first, 0),
                           0,
                           Extent{rows_there, Config::head_dim},
                           at.lane,
                           at.simdgroup * 32 + at.index,
                           {memory},
                           0,
                           {}};
  queries.start();
  const auto band = parts.variant().band(p.score, batch);
  const Pairs<Config, false> pairs{p.score,    make_score_factors(p.score),      band, {first, 0},
                                   rows_there, {parts, batch, head, p.num_heads}};
  Pass pass{&queries,
            rows_of<typename Pass::K>(k, p.k, batch, kv_head),
            rows_of<typename Pass::V>(v, p.v, batch, kv_head),
            at.simdgroup,
            pairs,
            {},
            {}};
  const Index begin = col_begin(band, first) / Config::block_n * Config::block_n;
  pass.run(begin, col_end(band, last), first, last);

  pass.store(rows_of<O>(o, p.o, batch, head).from(first, 0), rows_there);
  if (Config::has_lse && at.simdgroup == 0) {
    store_lse(pass.softmax, rows_of<Lse>(lse, p.lse, batch, head).from(first, 0), at.lane,
              rows_there, outer_factor<Config>(p.score));
  }
}

}  // namespace ingot

kernel void forward_wide(constant ingot::ForwardParams& params [[buffer(0)]],
                         const device Config::q_type* q [[buffer(1)]],
                         const device Config::k_type* k [[buffer(2)]],
                         const device Config::v_type* v [[buffer(3)]],
                         device Config::o_type* o [[buffer(4)]], device float* lse [[buffer(5)]],
                         INGOT_PART_BUFFERS, uint3 group [[threadgroup_position_in_grid]],
                         uint3 groups [[threadgroups_per_grid]],
                         ushort simdgroup [[simdgroup_index_in_threadgroup]],
                         ushort lane [[thread_index_in_simdgroup]]) {
  threadgroup uint4 memory[ingot::SharedMemory<Config>::bytes / 16];
  ingot::forward_wide<Config>(
      params, q, k, v, o, lse, reinterpret_cast<threadgroup uchar*>(memory), INGOT_PARTS_OF(params),
      ingot::Place{group, groups, short(simdgroup), short(lane), ingot::lane_of(lane)});
}
