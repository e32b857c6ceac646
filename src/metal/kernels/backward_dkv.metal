// dV = P^T dO and dK = scale * dS^T Q: the backward pass of FlashAttention for block_m keys, which
// walks along the blocks of query rows that see them, of every query head that shares their head.
// One threadgroup makes the whole sums, so no atomics and always the same bits.
#include "metal/kernels/backward_score.h"

namespace ingot {

template <class Config>
struct KeyGradient {
  using QRows = DeviceRows<Config, const typename Config::q_type, Config::q_strided>;
  using KRows = DeviceRows<Config, const typename Config::k_type, Config::k_strided>;
  using VRows = DeviceRows<Config, const typename Config::v_type, Config::v_strided>;
  using DORows = DeviceRows<Config, const typename Config::dout_type, Config::dout_strided>;
  using PWeights = Weights<Config, typename Config::pv_reg>;
  using DSWeights = Weights<Config, typename Config::ds_reg>;
  static constexpr constant int row_tiles = Share<Config>::row_tiles;
  static constexpr constant int own_tiles = Share<Config>::own_tiles;
  static constexpr constant int dim = Config::head_dim, dim_v = Config::head_dim_v;
  using QStream = Stream<Config, QRows, Config::block_n, Config::block_d>;
  using DOStream = Stream<Config, DORows, Config::block_n, Config::block_d>;
  using QWide = Stream<Config, QRows, wide_rows<Config>(), Result<Config, dim>::width>;
  using DOWide = Stream<Config, DORows, wide_rows<Config>(), Result<Config, dim_v>::width>;
  static constexpr constant int slot =
      larger(larger(QStream::bytes, DOStream::bytes), larger(QWide::bytes, DOWide::bytes)) / 16;
  static constexpr constant int memory = 2 * slot + larger(PWeights::bytes, DSWeights::bytes) / 16;

  OwnRows<Config, KRows, typename Config::qk_reg, dim, Config::cache_lhs> K;
  OwnRows<Config, VRows, typename Config::dp_reg, dim_v, Config::cache_dout> V;
  QStream Q;
  DOStream dO;
  QWide Q_wide;    // the same rows for the products that make results, in slabs of other
  DOWide dO_wide;  // proportions
  PWeights P;
  DSWeights dS;
  Result<Config, dim> dK;
  Result<Config, dim_v> dV;
  int key;  // the thread's first
  ScoreParams score;
  typename BandOf<Config>::type band;
  ScoreFactors factors;
  Slots slots;
  Worker worker;

  int row_of(int row, int c, int e) const {
    return row + 8 * (worker.split * own_tiles + c) + worker.lane.col + e;
  }
  template <bool edge>
  bool seen(int i, int row, RowParts<Config> parts) const {
    if constexpr (edge) {
      if (row >= score.seqlen_q) return false;
      if (Config::masked && !visible(band, row, key + 8 * i)) return false;
    }
    return parts.shows(col_of(i));
  }
  /// Keys that are not there count as the last that is.
  Index col_of(int i) const { return min(Index(key) + 8 * i, score.seqlen_k - 1); }
  RowParts<Config> parts_of(HeadTerms<Config> rows, int row) const {
    return rows.parts.row(min(Index(row), score.seqlen_q - 1));
  }

  /// Query rows [row, row + block_n) of one head. edge: some pairs are not there.
  template <bool edge>
  void step(int row, int next_row, HeadTerms<Config> rows) {
    Tile<float> S[row_tiles * own_tiles], dP[row_tiles * own_tiles];
    contract<Config, dim, edge>(S, K, Q, row, Following<DOWide>{&dO_wide, row}, slots, worker);
    INGOT_UNROLL for (int c = 0; c < own_tiles; ++c) {
      INGOT_UNROLL for (int e = 0; e < 2; ++e) {
        const int r = row_of(row, c, e);
        const bool inside = !edge || r < score.seqlen_q;
        const RowTerms terms = inside ? rows.of(r) : no_terms;
        const RowParts<Config> parts = parts_of(rows, r);
        INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
          thread Tile<float>& s = S[i * own_tiles + c];
          const Pair pair = pair_of<Config>(score, factors, s.thread_elements()[e], terms,
                                            seen<edge>(i, r, parts), parts, col_of(i));
          P.set(i, c, e, rows.parts.keeps(r, key + 8 * i) ? pair.p : 0.0f);
          s.thread_elements()[e] = pair.slope;
        }
      }
    }
    P.publish(worker);
    accumulate<Config, dim_v, typename Config::dp_reg, edge>(
        dV, P, dO_wide, row, Following<DOStream>{&dO, row}, slots, worker);
    contract<Config, dim_v, edge>(dP, V, dO, row, Following<QWide>{&Q_wide, row}, slots, worker);
    INGOT_UNROLL for (int c = 0; c < own_tiles; ++c) {
      INGOT_UNROLL for (int e = 0; e < 2; ++e) {
        const int r = row_of(row, c, e);
        const bool inside = !edge || r < score.seqlen_q;
        const float delta = inside ? rows.delta(r) : 0.0f;
        const RowParts<Config> parts = parts_of(rows, r);
        INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
          const float slope = S[i * own_tiles + c].thread_elements()[e];
          const float dp = dP[i * own_tiles + c].thread_elements()[e];
          const float kept = rows.parts.weighed(dp, rows.parts.keeps(r, key + 8 * i));
          dS.set(i, c, e, score_gradient(slope, kept, delta, seen<edge>(i, r, parts)));
        }
      }
    }
    dS.publish(worker);
    accumulate<Config, dim, typename Config::qk_reg, edge>(
        dK, dS, Q_wide, row, Following<QStream>{&Q, next_row}, slots, worker);
  }

  /// All rows of one query head, whose operands Q and dO have been given.
  void walk(int first_key, int last_key, HeadTerms<Config> rows) {
    const Index begin = Config::masked ? row_begin(band, first_key) : 0;
    const Index end = Config::masked ? row_end(band, last_key) : score.seqlen_q;
    Q.fetch(int(begin), 0);
    for (int row = int(begin); row < end; row += Config::block_n) {
      const int last = row + Config::block_n - 1;
      const bool full = last < score.seqlen_q &&
                        (!Config::masked || is_full(band, row, last, first_key, last_key));
      if (full) {
        step<false>(row, last + 1, rows);
      } else {
        step<true>(row, last + 1, rows);
      }
    }
  }
};

}  // namespace ingot

using namespace ingot;

kernel void backward_dkv(
    constant BackwardParams& p [[buffer(0)]], const device Config::q_type* q [[buffer(1)]],
    const device Config::k_type* k [[buffer(2)]], const device Config::v_type* v [[buffer(3)]],
    const device Config::dout_type* dout [[buffer(6)]], const device float* delta [[buffer(7)]],
    device Config::dk_type* dk [[buffer(9)]], device Config::dv_type* dv [[buffer(10)]],
    INGOT_PART_BUFFERS, uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  using Work = KeyGradient<Config>;
  threadgroup float4 memory[larger(Work::memory, 1)];
  const Index b = group.z, h_kv = group.y;
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
  work.P.memory = work.dS.memory = memory + 2 * Work::slot;
  work.key = first + w.row + w.lane.row;
  work.K.x = rows_of<Work::KRows>(k, p.k, b, h_kv);
  work.K.extent = k_extent, work.K.row = first + w.row, work.K.lane = w.lane;
  work.V.x = rows_of<Work::VRows>(v, p.v, b, h_kv);
  work.V.extent = v_extent, work.V.row = first + w.row, work.V.lane = w.lane;
  work.Q.extent = work.Q_wide.extent = q_extent;
  work.dO.extent = work.dO_wide.extent = do_extent;
  work.Q.thread_index = work.Q_wide.thread_index = work.dO.thread_index =
      work.dO_wide.thread_index = w.thread_index;
  work.K.start();
  work.V.start();
  work.dK.clear();
  work.dV.clear();
  const int last = min(first + Config::block_m, seqlen_k) - 1;
  for (int i = 0; i < p.group; ++i) {
    const Index h = h_kv * p.group + i;
    work.Q.x = rows_of<Work::QRows>(q, p.q, b, h);
    work.dO.x = rows_of<Work::DORows>(dout, p.dout, b, h);
    work.Q_wide.x = work.Q.x, work.dO_wide.x = work.dO.x;
    work.walk(first, last, terms_of<Config>(p, delta, INGOT_PARTS_OF(p), b, h));
  }

  using KOut = DeviceRows<Config, Config::dk_type, Config::dk_strided>;
  using VOut = DeviceRows<Config, Config::dv_type, Config::dv_strided>;
  if (p.has_dk) {
    const KOut out = rows_of<KOut>(dk, p.dk, b, h_kv);
    store<Config, Config::head_dim>(work.dK, out, first + w.row, last_factor<Config>(work.factors),
                                    k_extent, w);
  }
  if (p.has_dv) {
    const VOut out = rows_of<VOut>(dv, p.dv, b, h_kv);
    store<Config, Config::head_dim_v>(
        work.dV, out, first + w.row,
        HeadParts<Config>{INGOT_PARTS_OF(p), b, 0, p.num_heads}.kept_factor(), v_extent, w);
  }
}
