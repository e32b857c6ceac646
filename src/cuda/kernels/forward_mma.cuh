// Forward pass on mma.sync (f16, bf16) or multiply-adds (float), sm_80 and newer: any strides, any
// head_dim. A block of threads owns Config::block_m query rows and Config::columns cols of o; its
// warps split the rows and share every tile of K and V.
#pragma once

#include "cuda/kernels/forward_unit.cuh"

extern "C" __global__ void __launch_bounds__(Config::warps * 32)
    ingot_kernel(const __grid_constant__ ingot::MmaForwardParams p) {
  using namespace ingot;
  using T = Config::element;
  using Shape = ForwardShape<Config>;
  using Threads = Team<Config::warps * 32>;
  constexpr int rows_of_warp = Config::block_m / Config::warps;
  extern __shared__ __align__(16) unsigned char shared_memory[];
  T* const q = reinterpret_cast<T*>(shared_memory);

  if (p.run_if != nullptr && *p.run_if == 0) return;
  if constexpr (Config::split) let_next_start();
  const ForwardUnit unit = forward_unit(p, Config::masked);
  const Index row = unit.tile * Config::block_m;
  const Index query = Config::packed ? quotient(row, p.group) : row;
  const auto band = parts_of<Config>(p.parts).band(p.score, unit.batch);
  const BlockRange range = block_range<Config>(p, band, query, Config::block_m, unit.split);
  const auto tiles = forward_tiles<Config, Threads>(p, unit, range.begin, 1);
  if constexpr (Config::resident) {
    for (int c = 0; c < Shape::chunks; ++c) {
      load_tile<Threads, Config::block_m, Config::chunk>(q + c * Shape::QTile::elements, tiles.q,
                                                         row, c * Config::chunk);
    }
  }
  const int offset = warp() * rows_of_warp;
  WarpRows<Config, rows_of_warp> rows;
  const FragmentQueries queries = queries_of<Config>(p, unit, row + offset);
  rows.start(parts_of<Config>(p.parts), queries, unit.split == 0);
  attend<Config, Threads, rows_of_warp>(rows, tiles, range.count, q, offset * Shape::QTile::pitch,
                                        q + Shape::q_elements, p, band, queries);
  store_forward<Config, rows_of_warp>(p, unit, row + offset, rows.o, rows.softmax);
}
