// Attention, forward: every simdgroup owns rows_per_simdgroup query rows. Threadgroups: (row block,
// head, batch).
#include "metal/kernels/own_rows.h"

namespace ingot {

template <class Config>
struct ForwardTypes {
  using q_type = typename Config::q_type;
  using o_type = typename Config::o_type;
  using Q = Queries<Config, DeviceRows<Config, const q_type, Config::q_strided>, Config::cache_lhs>;
  using Keys = metal::conditional_t<Config::stage_rhs, StagedKeys<Config>, DirectKeys<Config>>;
  using O = DeviceRows<Config, o_type, Config::o_strided>;
  using Lse = Rows<float, device float*, Index, 1>;
};

template <class Config>
inline void forward(ForwardParams p, const device typename Config::q_type* q,
                    const device typename Config::k_type* k,
                    const device typename Config::v_type* v, device typename Config::o_type* o,
                    device float* lse, threadgroup uchar* memory, CallParts<Config> parts,
                    Place at) {
  using Types = ForwardTypes<Config>;
  using Keys = typename Types::Keys;
  constexpr int rows = Config::rows_per_simdgroup;
  const Index batch = at.group.z, head = at.group.y, kv_head = head / p.group;
  // The longest rows of a causal mask start first.
  const Index row_block = Config::masked ? at.groups.x - 1 - at.group.x : at.group.x;
  const Index group_first = row_block * Config::block_m;
  const Index group_last = clamp_index(group_first + Config::block_m, 1, p.score.seqlen_q) - 1;
  const Index first = group_first + at.simdgroup * rows;
  const Index last = clamp_index(first + rows, 1, p.score.seqlen_q) - 1;
  const int rows_there = int(clamp_index(p.score.seqlen_q - first, 0, rows));

  typename Types::Q queries{rows_of<typename Types::Q::Source>(q, p.q, batch, head).from(first, 0),
                            Extent{rows_there, Config::head_dim},
                            at.lane,
                            0,
                            {}};
  queries.start();
  const auto band = parts.variant().band(p.score, batch);
  const Pairs<Config, false> pairs{p.score,    make_score_factors(p.score),      band, {first, 0},
                                   rows_there, {parts, batch, head, p.num_heads}};
  Keys keys;
  keys.k = rows_of<typename Keys::Shape::K>(k, p.k, batch, kv_head);
  keys.v = rows_of<typename Keys::Shape::V>(v, p.v, batch, kv_head);
  const Index begin = col_begin(band, group_first) / Config::block_n * Config::block_n;
  const Index end = col_end(band, group_last);
  if constexpr (Keys::staged) {
    keys.memory = memory;
    keys.thread_index = at.simdgroup * 32 + at.index;
    keys.end = end;
    keys.seqlen_k = p.score.seqlen_k;
    if (begin < end) keys.start(begin);
  }
  OwnRows<Config, Keys, typename Types::Q, false> pass{&keys, &queries, pairs, {}, {}};
  pass.run(begin, end, first, last);

  pass.store(rows_of<typename Types::O>(o, p.o, batch, head).from(first, 0),
             Extent{rows_there, Config::head_dim_v});
  if constexpr (Config::has_lse) {
    store_lse(pass.softmax, rows_of<typename Types::Lse>(lse, p.lse, batch, head).from(first, 0),
              at.lane, rows_there, outer_factor<Config>(p.score));
  }
}

template <class Config, bool staged>
struct ForwardMemory {
  static constexpr constant int bytes = 16;
};
template <class Config>
struct ForwardMemory<Config, true> {
  static constexpr constant int bytes = 2 * StagedKeys<Config>::slot_bytes;
};

}  // namespace ingot

kernel void forward(constant ingot::ForwardParams& params [[buffer(0)]],
                    const device Config::q_type* q [[buffer(1)]],
                    const device Config::k_type* k [[buffer(2)]],
                    const device Config::v_type* v [[buffer(3)]],
                    device Config::o_type* o [[buffer(4)]], device float* lse [[buffer(5)]],
                    INGOT_PART_BUFFERS, uint3 group [[threadgroup_position_in_grid]],
                    uint3 groups [[threadgroups_per_grid]],
                    ushort simdgroup [[simdgroup_index_in_threadgroup]],
                    ushort lane [[thread_index_in_simdgroup]]) {
  threadgroup uint4 memory[ingot::ForwardMemory<Config, Config::stage_rhs>::bytes / 16];
  ingot::forward<Config>(
      params, q, k, v, o, lse, reinterpret_cast<threadgroup uchar*>(memory), INGOT_PARTS_OF(params),
      ingot::Place{group, groups, short(simdgroup), short(lane), ingot::lane_of(lane)});
}
