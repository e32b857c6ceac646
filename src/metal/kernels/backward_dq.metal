// dQ = scale * dS K with dS = P (dO V^T - delta): the backward pass of FlashAttention for block_m
// query rows, which walks along the blocks of keys that they see.
#include "metal/kernels/backward_score.h"

namespace ingot {

template <class Config>
struct QueryGradient {
  using QRows = DeviceRows<Config, const typename Config::q_type, Config::q_strided>;
  using KRows = DeviceRows<Config, const typename Config::k_type, Config::k_strided>;
  using VRows = DeviceRows<Config, const typename Config::v_type, Config::v_strided>;
  using DORows = DeviceRows<Config, const typename Config::dout_type, Config::dout_strided>;
  static constexpr constant int row_tiles = Share<Config>::row_tiles;
  static constexpr constant int own_tiles = Share<Config>::own_tiles;
  static constexpr constant int dim = Config::head_dim, dim_v = Config::head_dim_v;
  using KStream = Stream<Config, KRows, Config::block_n, Config::block_d>;
  using VStream = Stream<Config, VRows, Config::block_n, Config::block_d>;
  using KWide = Stream<Config, KRows, wide_rows<Config>(), Result<Config, dim>::width>;
  static constexpr constant int slot =
      larger(KStream::bytes, larger(VStream::bytes, KWide::bytes)) / 16;
  static constexpr constant int memory =
      2 * slot + Weights<Config, typename Config::ds_reg>::bytes / 16;

  OwnRows<Config, QRows, typename Config::qk_reg, dim, Config::cache_lhs> Q;
  OwnRows<Config, DORows, typename Config::dp_reg, dim_v, Config::cache_dout> dO;
  KStream K;
  VStream V;
  KWide K_wide;  // the same keys for the last product, in slabs of other proportions
  Weights<Config, typename Config::ds_reg> dS;
  Result<Config, dim> dQ;
  HeadTerms<Config> rows;  // read when weights are made: through the products they cost registers
  float delta[row_tiles];  // of the thread's rows
  int row;                 // of the thread's first
  ScoreParams score;
  typename BandOf<Config>::type band;
  ScoreFactors factors;
  Slots slots;
  Worker worker;

  int key_of(int col, int c, int e) const {
    return col + 8 * (worker.split * own_tiles + c) + worker.lane.col + e;
  }
  template <bool edge>
  bool seen(int i, int key, RowParts<Config> parts) const {
    if constexpr (edge) {
      if (key >= score.seqlen_k) return false;
      if (Config::masked && !visible(band, row + 8 * i, key)) return false;
    }
    return parts.shows(key);
  }
  RowParts<Config> parts_of(int i) const {
    return rows.parts.row(min(Index(row) + 8 * i, score.seqlen_q - 1));
  }

  void start() {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const Index r = row + 8 * i;
      const bool there = r < score.seqlen_q;
      delta[i] = there ? rows.delta(r) : 0.0f;
    }
    Q.start();
    dO.start();
    dQ.clear();
  }

  /// Keys [col, col + block_n). edge: some pairs are not there.
  template <bool edge>
  void step(int col, int next_col) {
    Tile<float> S[row_tiles * own_tiles], dP[row_tiles * own_tiles];
    contract<Config, dim, edge>(S, Q, K, col, Following<VStream>{&V, col}, slots, worker);
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const int r = row + 8 * i;
      const RowTerms terms = r < score.seqlen_q ? rows.of(r) : no_terms;
      const RowParts<Config> parts = parts_of(i);
      INGOT_UNROLL for (int c = 0; c < own_tiles; ++c) {
        INGOT_UNROLL for (int e = 0; e < 2; ++e) {
          // A key that is not there is not looked up, either.
          const int key = key_of(col, c, e);
          const bool there = seen<edge>(i, key, parts);
          thread Tile<float>& s = S[i * own_tiles + c];
          s.thread_elements()[e] = pair_of<Config>(score, factors, s.thread_elements()[e], terms,
                                                   there, parts, there ? key : 0)
                                       .slope;
        }
      }
    }
    contract<Config, dim_v, edge>(dP, dO, V, col, Following<KWide>{&K_wide, col}, slots, worker);
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const RowParts<Config> parts = parts_of(i);
      INGOT_UNROLL for (int c = 0; c < own_tiles; ++c) {
        const Kept kept = rows.parts.kept(row + 8 * i, key_of(col, c, 0));
        INGOT_UNROLL for (int e = 0; e < 2; ++e) {
          const float slope = S[i * own_tiles + c].thread_elements()[e];
          const float dp = dP[i * own_tiles + c].thread_elements()[e];
          const bool there = seen<edge>(i, key_of(col, c, e), parts);
          dS.set(i, c, e,
                 score_gradient(slope, rows.parts.weighed(dp, kept.of[e]), delta[i], there));
        }
      }
    }
    dS.publish(worker);
    accumulate<Config, dim, typename Config::qk_reg, edge>(
        dQ, dS, K_wide, col, Following<KStream>{&K, next_col}, slots, worker);
  }

  /// Rows without weight have no part of what other rows of their tiles see, were it NaN.
  void clear_unseen() {
    if constexpr (Config::mask) {
      constexpr int tiles = Result<Config, dim>::tiles;
      INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
        const int r = row + 8 * i;
        if (r >= score.seqlen_q || rows.of(r).shift != INFINITY) continue;
        INGOT_UNROLL for (int t = 0; t < tiles; ++t) set_zero(dQ.tile[i * tiles + t]);
      }
    }
  }

  void walk(int first_row, int last_row) {
    const Index begin = Config::masked ? col_begin(band, first_row) : 0;
    const Index end = Config::masked ? col_end(band, last_row) : score.seqlen_k;
    K.fetch(int(begin), 0);
    for (int col = int(begin); col < end; col += Config::block_n) {
      const int last = col + Config::block_n - 1;
      const bool full = last < score.seqlen_k &&
                        (!Config::masked || is_full(band, first_row, last_row, col, last));
      if (full) {
        step<false>(col, last + 1);
      } else {
        step<true>(col, last + 1);
      }
    }
  }
};

}  // namespace ingot

using namespace ingot;

kernel void backward_dq(
    constant BackwardParams& p [[buffer(0)]], const device Config::q_type* q [[buffer(1)]],
    const device Config::k_type* k [[buffer(2)]], const device Config::v_type* v [[buffer(3)]],
    const device Config::dout_type* dout [[buffer(6)]], const device float* delta [[buffer(7)]],
    device Config::dq_type* dq [[buffer(8)]], INGOT_PART_BUFFERS,
    uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  using Work = QueryGradient<Config>;
  threadgroup float4 memory[larger(Work::memory, 1)];
  const Index b = group.z, h = group.y, h_kv = h / p.group;
  const int first = int(group.x) * Config::block_m;
  const int seqlen_q = int(p.score.seqlen_q), seqlen_k = int(p.score.seqlen_k);
  const Worker w = worker_of<Config>(int(thread_index), int(simdgroup), ushort(lane));
  const Extent q_extent{seqlen_q, Config::head_dim}, do_extent{seqlen_q, Config::head_dim_v};
  const Extent k_extent{seqlen_k, Config::head_dim}, v_extent{seqlen_k, Config::head_dim_v};

  Work work;
  work.score = p.score;
  work.band = INGOT_PARTS_OF(p).variant().band(p.score, b);
  work.factors = make_score_factors(p.score);
  work.worker = w;
  work.slots = Slots{memory, Work::slot, 1};
  work.dS.memory = memory + 2 * Work::slot;
  work.row = first + w.row + w.lane.row;
  work.Q.x = rows_of<Work::QRows>(q, p.q, b, h);
  work.Q.extent = q_extent, work.Q.row = first + w.row, work.Q.lane = w.lane;
  work.dO.x = rows_of<Work::DORows>(dout, p.dout, b, h);
  work.dO.extent = do_extent, work.dO.row = first + w.row, work.dO.lane = w.lane;
  work.K.x = rows_of<Work::KRows>(k, p.k, b, h_kv);
  work.K.extent = k_extent, work.K.thread_index = w.thread_index;
  work.K_wide.x = work.K.x, work.K_wide.extent = k_extent,
  work.K_wide.thread_index = w.thread_index;
  work.V.x = rows_of<Work::VRows>(v, p.v, b, h_kv);
  work.V.extent = v_extent, work.V.thread_index = w.thread_index;
  work.rows = terms_of<Config>(p, delta, INGOT_PARTS_OF(p), b, h);
  work.start();
  work.walk(first, min(first + Config::block_m, seqlen_q) - 1);
  work.clear_unseen();

  using Out = DeviceRows<Config, Config::dq_type, Config::dq_strided>;
  const Out out = rows_of<Out>(dq, p.dq, b, h);
  store<Config, Config::head_dim>(work.dQ, out, first + w.row, last_factor<Config>(work.factors),
                                  q_extent, w);
}
