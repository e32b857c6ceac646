// dK = sum over queries of dS^T Q, dV = sum of P^T dO. A block of threads keeps Config::block_m
// keys of one key/value head and goes through all query heads of its group and the queries that see
// these keys: the sums over a group are exact, in a fixed order, and no two blocks add to the same
// number.
#pragma once

#include "cuda/kernels/backward_unit.cuh"

namespace ingot {

// Of the queries of one block.
template <class Config>
struct SharedStatistics {
  float shift[Config::block_n], log2_sum[Config::block_n], delta[Config::block_n];

  INGOT_FN RowStatistics of(int query) const {
    return {shift[query], log2_sum[query], delta[query]};
  }
};

// The tiles of BackwardTiles, and with the first of a block its statistics.
template <class Config, class Tiles>
struct KeyStationaryTiles {
  using T = typename Config::element;
  Tiles tiles;
  SharedStatistics<Config>* statistics;  // Config::stages of them
  const RowStatistics* rows;             // of the first head of the group
  Index seqlen_q;

  INGOT_FN void load(int block, int item, T* slot) const {
    tiles.load(block, item, slot);
    if (item > 0 || threadIdx.x >= Config::block_n) return;
    SharedStatistics<Config>& to = statistics[block % Config::stages];
    const Index row = tiles.col(block) + threadIdx.x, head = block / tiles.blocks;
    const int bytes = row < seqlen_q ? 4 : 0;
    const RowStatistics* const from = rows + head * seqlen_q + (bytes > 0 ? row : 0);
    copy_async_4(&to.shift[threadIdx.x], &from->shift, bytes);
    copy_async_4(&to.log2_sum[threadIdx.x], &from->log2_sum, bytes);
    copy_async_4(&to.delta[threadIdx.x], &from->delta, bytes);
  }
};

// The tiles of one unit: queries [first, first + blocks) blocks of every head of the group.
template <class Config, class Team>
struct KeyStationary {
  using Tiles = BackwardTiles<Config, Team, typename Config::k_type, typename Config::v_type,
                              typename Config::q_type, typename Config::dout_type>;
  using Source = KeyStationaryTiles<Config, Tiles>;

  INGOT_FN static Source source(const MmaBackwardParams& p, const BackwardUnit& unit,
                                const typename BandOf<Config>::type& band, int& blocks,
                                void* statistics) {
    const Index row = unit.tile * Config::block_m, head = unit.head * p.group;
    const Index last = clamp_index(row + Config::block_m - 1, 0, p.score.seqlen_k - 1);
    const Index first = row_begin(band, row) / Config::block_n;
    const Index end = (row_end(band, last) + Config::block_n - 1) / Config::block_n;
    const int count = end > first ? static_cast<int>(end - first) : 0;
    blocks = count * static_cast<int>(p.group);
    return {{matrix_of<const typename Config::k_type>(p.k, unit.batch, unit.head, p.score.seqlen_k,
                                                      Config::head_dim),
             matrix_of<const typename Config::v_type>(p.v, unit.batch, unit.head, p.score.seqlen_k,
                                                      Config::head_dim_v),
             matrix_of<const typename Config::q_type>(p.q, unit.batch, head, p.score.seqlen_q,
                                                      Config::head_dim),
             matrix_of<const typename Config::dout_type>(p.dout, unit.batch, head, p.score.seqlen_q,
                                                         Config::head_dim_v),
             row, first, count > 0 ? count : 1, unit.slice * Config::columns,
             unit.slice * Config::columns_v},
            static_cast<SharedStatistics<Config>*>(statistics),
            p.statistics + (unit.batch * p.heads + head) * p.score.seqlen_q,
            p.score.seqlen_q};
  }
};

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::MmaBackwardParams p) {
  using namespace ingot;
  if (p.run_if != nullptr && *p.run_if == 0) return;
  using T = Config::element;
  using Shape = BackwardShape<Config>;
  using Threads = Team<Config::warps * 32>;
  using Keys = KeyStationary<Config, Threads>;
  constexpr int M = Config::block_m / Config::warps, both = Shape::chunks + Shape::chunks_v;
  using S = Fragment<M, Config::block_n>;
  extern __shared__ __align__(16) unsigned char shared_memory[];
  T* const a = reinterpret_cast<T*>(shared_memory);
  T* const slots = a + Shape::a_elements;

  const BackwardUnit unit = backward_unit(p, quotient(p.heads, p.group), false);
  int blocks = 0;
  const Parts<Config> parts = parts_of<Config>(p.parts);
  const auto band = parts.band(p.score, unit.batch);
  const auto source =
      Keys::source(p, unit, band, blocks, slots + Config::stages * Shape::slot_elements);
  source.tiles.load_stationary(a);
  const int offset = warp() * M;
  const Index row = source.tiles.row + offset;
  const ScoreFactors factors = make_score_factors(p.score);
  typename Accumulator<T, M, Config::columns>::type dk;
  typename Accumulator<T, M, Config::columns_v>::type dv;
  const Index first_key = inside(row, p.score.seqlen_k);
  const int keys = static_cast<int>(clamp_index(p.score.seqlen_k - row, 1, M));
  dk.clear();
  dv.clear();
  TileRing<Threads, T, Shape::slot_elements, Config::stages, Shape::items, typename Keys::Source>
      ring(slots, source, blocks);
  for (int block = 0; block < blocks; ++block) {
    S s, ds;
    const T* b = multiply_block<Config>(s, ds, ring, block, a, offset);
    const SharedStatistics<Config>& statistics = source.statistics[block % Config::stages];
    const Index query = source.tiles.col(block);
    const bool full =
        query + Config::block_n <= p.score.seqlen_q &&
        (!Config::masked || is_full(band, query, query + Config::block_n - 1, row, row + M - 1));
    const Index head = unit.head * p.group + block / source.tiles.blocks;
    const auto kept =
        kept_of_keys<Config, S>(parts, row, query, dropout_head(unit.batch, p.heads, head));
    kept.apply(ds);
    const int queries = static_cast<int>(clamp_index(p.score.seqlen_q - query, 1, Config::block_n));
#pragma unroll
    for (int j = 0; j < S::cols; ++j) {
      const RowStatistics r = statistics.of(S::col(j));
      const RowParts<Config> of_row =
          parts.row(unit.batch, head, query + inside(S::col(j), queries)).from(first_key);
#pragma unroll
      for (int i = 0; i < S::rows; ++i) {
        differentiate<Config>(p.score, factors, s.x[i][j], ds.x[i][j], true, r, of_row,
                              inside(S::row(i), keys));
      }
    }
    kept.apply(s);
    // Behind it and not within: ranges of all rows at a time lack registers.
    if (!full) {
#pragma unroll
      for (int i = 0; i < S::rows; ++i) {
        const Range seen = rows_of(band, row + S::row(i), query, Config::block_n);
#pragma unroll
        for (int j = 0; j < S::cols; ++j) {
          if (!seen.holds(S::col(j))) s.x[i][j] = ds.x[i][j] = 0.0f;
        }
      }
    }
#pragma unroll
    for (int c = 0; c < Shape::sums_v; ++c) {
      const T* dout = Shape::whole ? b + Shape::b1_slot : ring.next(block, both + c);
      multiply<Config::chunk_v>(dv, c * Config::chunk_v, s, dout, Shape::B2::pitch);
    }
#pragma unroll
    for (int c = 0; c < Shape::sums; ++c) {
      const T* q = Shape::whole ? b : ring.next(block, both + Shape::sums_v + c);
      multiply<Config::chunk>(dk, c * Config::chunk, ds, q, Shape::B1::pitch);
    }
  }
  float scale[S::rows], one[S::rows];
#pragma unroll
  for (int i = 0; i < S::rows; ++i) scale[i] = p.score.scale, one[i] = 1.0f;
  if (p.dk.data != nullptr) {
    store_tile(
        matrix_of<Config::dk_type>(p.dk, unit.batch, unit.head, p.score.seqlen_k, Config::head_dim),
        row, source.tiles.column, dk, scale);
  }
  if (p.dv.data != nullptr) {
    store_tile(matrix_of<Config::dv_type>(p.dv, unit.batch, unit.head, p.score.seqlen_k,
                                          Config::head_dim_v),
               row, source.tiles.column_v, dv, one);
  }
}
