// Forward pass for few query rows and many keys: the query heads of a key/value head are rows of
// one tile, the warps of a block take its blocks of keys in turn, each with a ring of its own, and
// blocks of threads take pieces of the keys (combine.cuh merges them). What bounds it is reading K
// and V.
#pragma once

#include "cuda/kernels/forward_unit.cuh"

namespace ingot {

// A warp's rows as they lie in shared memory between two warps: a number per lane.
template <class Rows, int M>
struct SharedRows {
  float o[sizeof(Rows::o) / sizeof(float)][32];
  float row_max[M / 8][32], row_sum[M / 8][32];
};

template <class Rows, int M>
INGOT_FN void leave(SharedRows<Rows, M>& shared, const Rows& rows) {
  constexpr int cols = Rows::O::cols;
#pragma unroll
  for (int i = 0; i < M / 8; ++i) {
    shared.row_max[i][lane()] = rows.softmax[i].row_max;
    shared.row_sum[i][lane()] = rows.softmax[i].row_sum;
#pragma unroll
    for (int j = 0; j < cols; ++j) shared.o[i * cols + j][lane()] = rows.o.x[i][j];
  }
}

// Softmax over the keys of both.
template <class Rows, int M>
INGOT_FN void merge(Rows& rows, const SharedRows<Rows, M>& shared) {
  constexpr int cols = Rows::O::cols;
#pragma unroll
  for (int i = 0; i < M / 8; ++i) {
    const float correction = rows.softmax[i].raise_max(shared.row_max[i][lane()]);
    const float weight = exp2_(shared.row_max[i][lane()] - rows.softmax[i].offset());
    rows.softmax[i].row_sum += shared.row_sum[i][lane()] * weight;
#pragma unroll
    for (int j = 0; j < cols; ++j) {
      rows.o.x[i][j] = rows.o.x[i][j] * correction + shared.o[i * cols + j][lane()] * weight;
    }
  }
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(Config::warps * 32, 2)
    ingot_kernel(const __grid_constant__ ingot::MmaForwardParams p) {
  using namespace ingot;
  using T = Config::element;
  using Shape = ForwardShape<Config>;
  using Rows = WarpRows<Config, Config::block_m>;
  extern __shared__ __align__(16) unsigned char shared_memory[];
  constexpr int elements_of_warp = Shape::q_elements + Config::stages * Shape::slot_elements;
  T* const q = reinterpret_cast<T*>(shared_memory) + warp() * elements_of_warp;

  if (p.run_if != nullptr && *p.run_if == 0) return;
  if constexpr (Config::split) let_next_start();
  const ForwardUnit unit = forward_unit(p, false);
  const Index row = unit.tile * Config::block_m;
  const Index query = Config::packed ? quotient(row, p.group) : row;
  const BlockRange range = block_range<Config>(p, query, Config::block_m, unit.split);
  const auto tiles = forward_tiles<Config, Team<32>>(p, unit, range.begin + warp(), Config::warps);
  for (int c = 0; c < Shape::chunks; ++c) {
    load_tile<Team<32>, Config::block_m, Config::chunk>(q + c * Shape::QTile::elements, tiles.q,
                                                        row, c * Config::chunk);
  }
  const int mine = range.count > warp() ? ceil_div(range.count - warp(), Config::warps) : 0;
  Rows rows;
  rows.clear();
  attend<Config, Team<32>, Config::block_m>(rows, tiles, mine, q, 0, q + Shape::q_elements, p.score,
                                            row);

  auto* const shared = reinterpret_cast<SharedRows<Rows, Config::block_m>*>(shared_memory);
  __syncthreads();
  if (warp() > 0) leave(shared[warp() - 1], rows);
  __syncthreads();
  if (warp() > 0) return;
  for (int other = 1; other < Config::warps; ++other) merge(rows, shared[other - 1]);
  store_forward<Config, Config::block_m>(p, unit, row, rows.o, rows.softmax);
}
