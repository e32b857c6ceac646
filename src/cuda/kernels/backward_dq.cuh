// dQ = sum over keys of dS K. A block of threads keeps Config::block_m queries and goes through the
// keys they see: no two blocks add to the same number.
#pragma once

#include "cuda/kernels/backward_unit.cuh"

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::MmaBackwardParams p) {
  using namespace ingot;
  if (p.run_if != nullptr && *p.run_if == 0) return;
  using T = Config::element;
  using Shape = BackwardShape<Config>;
  using Threads = Team<Config::warps * 32>;
  constexpr int M = Config::block_m / Config::warps;
  using S = Fragment<M, Config::block_n>;
  extern __shared__ __align__(16) unsigned char shared_memory[];
  T* const a = reinterpret_cast<T*>(shared_memory);

  const BackwardUnit unit = backward_unit(p, p.heads, true);
  const Index row = unit.tile * Config::block_m, head_kv = quotient(unit.head, p.group);
  const Index last = clamp_index(row + Config::block_m - 1, 0, p.score.seqlen_q - 1);
  const Parts<Config> parts = parts_of<Config>(p.parts);
  const auto band = parts.band(p.score, unit.batch);
  const Index first = col_begin(band, row) / Config::block_n;
  const Index end = (col_end(band, last) + Config::block_n - 1) / Config::block_n;
  const int blocks = end > first ? static_cast<int>(end - first) : 0;
  using Tiles = BackwardTiles<Config, Threads, Config::q_type, Config::dout_type, Config::k_type,
                              Config::v_type>;
  const Tiles tiles{
      matrix_of<const Config::q_type>(p.q, unit.batch, unit.head, p.score.seqlen_q,
                                      Config::head_dim),
      matrix_of<const Config::dout_type>(p.dout, unit.batch, unit.head, p.score.seqlen_q,
                                         Config::head_dim_v),
      matrix_of<const Config::k_type>(p.k, unit.batch, head_kv, p.score.seqlen_k, Config::head_dim),
      matrix_of<const Config::v_type>(p.v, unit.batch, head_kv, p.score.seqlen_k,
                                      Config::head_dim_v),
      row,
      first,
      blocks > 0 ? blocks : 1,
      unit.slice * Config::columns,
      0};
  tiles.load_stationary(a);

  const int offset = warp() * M;
  const ScoreFactors factors = make_score_factors(p.score);
  __shared__ RowStatistics shared_statistics[Config::block_m];
  RowStatistics* const statistics = shared_statistics + offset;
  if (lane() < M) {
    statistics[lane()] = statistics_of(p, unit.batch, unit.head, row + offset + lane());
  }
  __syncwarp();
  typename Accumulator<T, M, Config::columns>::type dq;
  dq.clear();
  RowsOfWeight<Config> weighed;
  weighed.start();
  TileRing<Threads, T, Shape::slot_elements, Config::stages, Shape::items, Tiles> ring(
      a + Shape::a_elements, tiles, blocks);
  for (int block = 0; block < blocks; ++block) {
    S s, ds;
    const T* b = multiply_block<Config>(s, ds, ring, block, a, offset);
    // Made anew in every step: kept over the loop it cost registers.
    const FragmentQueries queries{unit.batch, unit.head, 0, row + offset, 1u};
    differentiate_queries<Config>(s, ds, p, parts, band, queries, tiles.col(block), factors,
                                  statistics);
#pragma unroll
    for (int i = 0; i < S::rows; ++i) {
#pragma unroll
      for (int j = 0; j < S::cols; ++j) weighed.note(i, s.x[i][j]);
    }
#pragma unroll
    for (int c = 0; c < Shape::sums; ++c) {
      const T* k = Shape::whole ? b : ring.next(block, Shape::chunks + Shape::chunks_v + c);
      multiply<Config::chunk>(dq, c * Config::chunk, ds, k, Shape::B1::pitch);
    }
  }
  float scale[S::rows];
#pragma unroll
  for (int i = 0; i < S::rows; ++i) scale[i] = p.score.scale;
  weighed.clear_others(dq);
  store_tile(
      matrix_of<Config::dq_type>(p.dq, unit.batch, unit.head, p.score.seqlen_q, Config::head_dim),
      row + offset, unit.slice * Config::columns, dq, scale);
}
