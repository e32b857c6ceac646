// Forward pass for few query rows and many keys: the query heads of a key/value head are rows of
// one tile, the warps of a block take its blocks of keys in turn, each with a ring of its own, and
// blocks of threads take pieces of the keys (combine.cuh merges them). What bounds it is reading K
// and V.
#pragma once

#include "cuda/kernels/forward_unit.cuh"

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
  const auto band = parts_of<Config>(p.parts).band(p.score, unit.batch);
  const BlockRange range = block_range<Config>(p, band, query, Config::block_m, unit.split);
  const auto tiles = forward_tiles<Config, Team<32>>(p, unit, range.begin + warp(), Config::warps);
  for (int c = 0; c < Shape::chunks; ++c) {
    load_tile<Team<32>, Config::block_m, Config::chunk>(q + c * Shape::QTile::elements, tiles.q,
                                                        row, c * Config::chunk);
  }
  const int mine = range.count > warp() ? ceil_div(range.count - warp(), Config::warps) : 0;
  Rows rows;
  const FragmentQueries queries = queries_of<Config>(p, unit, row);
  rows.start(parts_of<Config>(p.parts), queries, unit.split == 0 && warp() == 0);
  attend<Config, Team<32>, Config::block_m>(rows, tiles, mine, q, 0, q + Shape::q_elements, p, band,
                                            queries);

  merge_warps<Config>(rows, shared_memory, p.score);
  if (warp() > 0) return;
  store_forward<Config, Config::block_m>(p, unit, row, rows.o, rows.softmax);
}
