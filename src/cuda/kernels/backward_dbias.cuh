// dbias = sum of P (dP - delta) over the dimensions in which bias has the extent 1. A block of
// threads owns a tile of dbias and goes through all pairs of tiles of queries and keys that it is
// added to, in a fixed order: nothing of size seqlen_q * seqlen_k is kept but dbias itself, and no
// two blocks add to the same number.
#pragma once

#include "cuda/kernels/backward_unit.cuh"

namespace ingot {

// Place of a tile of queries and keys.
struct PairsAt {
  Index batch, head, row, col;
};

// The tile of dbias that this block of threads makes, and the tiles that are added to it: every
// batch entry, head, tile of queries and tile of keys of dimensions that dbias lacks.
template <class Config>
struct BiasUnit {
  PairsAt first;
  Index heads;  // that are added up
  int row_tiles, col_tiles;
  Index all;  // batch entries * heads

  INGOT_FN explicit BiasUnit(const MmaBackwardParams& p) {
    const Index rows = (p.bias_shape[2] + Config::block_m - 1) / Config::block_m;
    const Index cols = (p.bias_shape[3] + Config::block_n - 1) / Config::block_n;
    Index x = blockIdx.x;
    first.col = quotient_and_rest(x, cols) * Config::block_n;
    first.row = quotient_and_rest(x, rows) * Config::block_m;
    first.head = quotient_and_rest(x, p.bias_shape[1]);
    first.batch = x;
    heads = p.bias_shape[1] == 1 ? p.heads : 1;
    all = heads * (p.bias_shape[0] == 1 ? p.batch : 1);
    row_tiles = p.bias_shape[2] == 1 ? tiles_of(p.score.seqlen_q, Config::block_m) : 1;
    col_tiles = p.bias_shape[3] == 1 ? tiles_of(p.score.seqlen_k, Config::block_n) : 1;
  }
  // The rest; x becomes the quotient.
  INGOT_FN static Index quotient_and_rest(Index& x, Index n) {
    const Index q = quotient(x, n), rest = x - q * n;
    x = q;
    return rest;
  }
  INGOT_FN static int tiles_of(Index count, int tile) {
    return static_cast<int>((count + tile - 1) / tile);
  }
  INGOT_FN PairsAt at(Index of_all, int block) const {
    const Index batch = quotient(of_all, heads);
    return {first.batch + batch, first.head + (of_all - batch * heads),
            first.row + static_cast<Index>(block / col_tiles) * Config::block_m,
            first.col + static_cast<Index>(block % col_tiles) * Config::block_n};
  }
};

// What a ring loads: chunks of keys with those of queries, then of values with those of dout.
template <class Config, class Team>
struct BiasTiles {
  using Shape = BackwardShape<Config>;
  using T = typename Shape::T;
  const MmaBackwardParams& p;
  const BiasUnit<Config>& unit;
  Index of_all;

  INGOT_FN void load(int block, int item, T* slot) const {
    const PairsAt at = unit.at(of_all, block);
    const Index head_kv = quotient(at.head, p.group);
    if (item < Shape::chunks) {
      const int from = item * Config::chunk;
      load_tile<Team, Config::block_n, Config::chunk>(
          slot,
          matrix_of<const typename Config::k_type>(p.k, at.batch, head_kv, p.score.seqlen_k,
                                                   Config::head_dim),
          at.col, from);
      load_tile<Team, Config::block_m, Config::chunk>(
          slot + Shape::B1::elements,
          matrix_of<const typename Config::q_type>(p.q, at.batch, at.head, p.score.seqlen_q,
                                                   Config::head_dim),
          at.row, from);
    } else {
      const int from = (item - Shape::chunks) * Config::chunk_v;
      load_tile<Team, Config::block_n, Config::chunk_v>(
          slot,
          matrix_of<const typename Config::v_type>(p.v, at.batch, head_kv, p.score.seqlen_k,
                                                   Config::head_dim_v),
          at.col, from);
      load_tile<Team, Config::block_m, Config::chunk_v>(
          slot + Shape::B2::elements,
          matrix_of<const typename Config::dout_type>(p.dout, at.batch, at.head, p.score.seqlen_q,
                                                      Config::head_dim_v),
          at.row, from);
    }
  }
};

// Sums over rows, or cols, that dbias lacks, and the store. sums: [warps][block_n].
template <class Config, class S>
INGOT_FN void store_bias(const S& sum, const MmaBackwardParams& p, const PairsAt& at,
                         float (*sums)[Config::block_n]) {
  using Output = typename Config::output;
  constexpr int M = 8 * S::rows;
  const bool one_row = p.bias_shape[2] == 1, one_col = p.bias_shape[3] == 1;
  const auto out = matrix_of<Output>(p.dbias, at.batch, at.head, p.bias_shape[2],
                                     static_cast<int>(p.bias_shape[3]));
  const Index row = at.row + warp() * M;
  if (!one_row && !one_col) {
    float one[S::rows];
#pragma unroll
    for (int i = 0; i < S::rows; ++i) one[i] = 1.0f;
    store_tile(out, row, static_cast<int>(at.col), sum, one);
    return;
  }
  if (!one_row) {
#pragma unroll
    for (int i = 0; i < S::rows; ++i) {
      float x = 0.0f;
#pragma unroll
      for (int j = 0; j < S::cols; ++j) x += sum.x[i][j];
      x = sum_of_quad(x);
      const Index r = row + S::row(i);
      if (lane() % 4 == 0 && r < out.rows) from_float(*out.row(r), x);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < S::cols; ++j) {
    float x = 0.0f;
#pragma unroll
    for (int i = 0; i < S::rows; ++i) x += sum.x[i][j];
#pragma unroll
    for (int d = 4; d < 32; d *= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, d);
    if (lane() < 4) sums[warp()][S::col(j)] = x;
  }
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= (one_col ? 1 : Config::block_n)) return;
  float x = 0.0f;
  for (int col = thread; col < (one_col ? Config::block_n : thread + 1); ++col) {
    for (int w = 0; w < Config::warps; ++w) x += sums[w][col];
  }
  const Index col = at.col + thread;
  if (col < p.bias_shape[3]) from_float(out.row(0)[col * out.col_stride], x);
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(Config::warps * 32, 1)
    ingot_kernel(const __grid_constant__ ingot::MmaBackwardParams p) {
  using namespace ingot;
  if (p.run_if != nullptr && *p.run_if == 0) return;
  using T = Config::element;
  using Shape = BackwardShape<Config>;
  using Threads = Team<Config::warps * 32>;
  using Tiles = BiasTiles<Config, Threads>;
  constexpr int M = Config::block_m / Config::warps;
  using S = Fragment<M, Config::block_n>;
  extern __shared__ __align__(16) unsigned char shared_memory[];
  T* const slots = reinterpret_cast<T*>(shared_memory);
  __shared__ RowStatistics shared_statistics[Config::block_m];
  __shared__ float sums[Config::warps][Config::block_n];

  const BiasUnit<Config> unit(p);
  const Parts<Config> parts = parts_of<Config>(p.parts);
  const ScoreFactors factors = make_score_factors(p.score);
  const int offset = warp() * M, blocks = unit.row_tiles * unit.col_tiles;
  RowStatistics* const statistics = shared_statistics + offset;
  S sum;
  sum.clear();
  for (Index of_all = 0; of_all < unit.all; ++of_all) {
    TileRing<Threads, T, Shape::slot_elements, Config::stages, Shape::items, Tiles> ring(
        slots, Tiles{p, unit, of_all}, blocks);
    for (int block = 0; block < blocks; ++block) {
      const PairsAt at = unit.at(of_all, block);
      const auto band = parts.band(p.score, at.batch);
      const Index last = inside<Index>(at.row + Config::block_m - 1, p.score.seqlen_q);
      if (at.col >= col_end(band, last) || at.col + Config::block_n <= col_begin(band, at.row)) {
        for (int item = 0; item < Shape::items; ++item) ring.next(block, item);
        continue;
      }
      if (lane() < M) {
        statistics[lane()] = statistics_of(p, at.batch, at.head, at.row + offset + lane());
      }
      __syncwarp();
      S s, ds;
      multiply_block<Config>(s, ds, ring, block, slots, offset);
      const FragmentQueries rows{at.batch, at.head, 0, at.row + offset, 1u};
      differentiate_queries<Config, true>(s, ds, p, parts, band, rows, at.col, factors, statistics);
      __syncwarp();
#pragma unroll
      for (int i = 0; i < S::rows; ++i) {
#pragma unroll
        for (int j = 0; j < S::cols; ++j) sum.x[i][j] += ds.x[i][j];
      }
    }
    Threads::sync();  // before the next ring writes its slots
  }
  store_bias<Config>(sum, p, unit.first, sums);
}
