// What follows from a Config of forward_sm90: sizes, the map of shared memory, and the tiles that a
// block takes in turn.
#pragma once

#include "algorithm/score.h"
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/pairs.cuh"
#include "cuda/kernels/params.h"

namespace ingot {

template <class Config>
struct ForwardShape {
  static constexpr int warpgroups = Config::warpgroups, stages = Config::stages;
  static constexpr int planes = Config::planes, cluster = Config::cluster;
  // 64 rows a warpgroup; in forward_wide_sm90 the first of three makes weights for all 64 and the
  // others have half of O's columns each.
  static constexpr bool wide = Config::wide;
  static constexpr int row_groups = wide ? 1 : warpgroups;
  static constexpr int block_m = 64 * row_groups, block_n = Config::block_n;
  static constexpr int dim = (Config::head_dim + 15) / 16 * 16;  // columns the products take
  static constexpr int dim_v = (Config::head_dim_v + 15) / 16 * 16;
  static constexpr int panels = (dim + 63) / 64, panels_v = (dim_v + 63) / 64;
  static constexpr int columns = wide ? (panels_v + 1) / 2 * 64 : dim_v;  // of one warpgroup
  static constexpr int threads = 128 * (warpgroups + 1);
  // The register file in warpgroups' shares; what it starts with goes from the loader to the rest.
  static constexpr int loader_registers = warpgroups == 1   ? 56
                                          : warpgroups == 3 ? 32
                                          : cluster > 1     ? 40
                                                            : 24;
  static constexpr int registers = warpgroups == 1   ? 248
                                   : wide            ? columns / 2 + 56
                                   : warpgroups == 3 ? 160
                                   : cluster > 1     ? 232
                                                     : 240;
  // Of the first warpgroup where wide, which starts with 128.
  static constexpr int weights_registers = 512 - loader_registers - 2 * registers;

  // Bytes. A plane of a tile is panels of 64 columns, [rows][128 bytes].
  static constexpr int q_plane = panels * 64 * 128;
  static constexpr int k_plane = panels * block_n * 128;
  static constexpr int v_plane = panels_v * block_n * 128;
  static constexpr int q_tile = planes * q_plane, k_tile = planes * k_plane;
  static constexpr int v_tile = planes * v_plane;

  static constexpr int q_at = 0, k_at = row_groups * q_tile, v_at = k_at + stages * k_tile;
  // Messages of the first warpgroup to the others: weights of a tile, a factor for each row.
  static constexpr int p_tile = 64 * 128, factors = 2 * 4 * 128;
  static constexpr int p_at = v_at + stages * v_tile;
  static constexpr int slack = 2048;  // barriers, and to align the start
  static constexpr bool two_fit = p_at + 2 * (p_tile + factors) + slack <= 232448;
  static constexpr int messages = !wide ? 0 : two_fit ? 2 : 1;
  static constexpr int factors_at = p_at + messages * p_tile;
  static constexpr int q_full = factors_at + messages * factors, q_empty = q_full + 8 * row_groups;
  static constexpr int k_full = q_empty + 8 * row_groups, k_empty = k_full + 8 * stages;
  static constexpr int v_full = k_empty + 8 * stages, v_empty = v_full + 8 * stages;
  static constexpr int p_full = v_empty + 8 * stages, p_empty = p_full + 8 * messages;
  static constexpr int bytes = p_empty + 8 * messages;
  static_assert(bytes - factors_at - messages * factors + 1023 <= slack, "barriers: fit the slack");
};

// The units of work of this block in turn, forward and backward through the blocks: early ones do
// not end with all the long tiles.
template <class Config>
struct Turn {
  int round = 0;

  INGOT_FN int unit() const {
    constexpr int cluster = Config::cluster;
    const int count = static_cast<int>(gridDim.x) / cluster;
    const int first = static_cast<int>(blockIdx.x) / cluster;
    return round * count + (round % 2 == 0 ? first : count - 1 - first);
  }
};

// One tile of query rows, and the key blocks [begin, end) that its rows see.
struct Tile {
  int batch, head, head_kv;
  int row;  // first, of this block of the cluster
  int begin, end;
};

// Rows of q that `rows` rows of a tile stand for.
template <class Config>
INGOT_FN int query_rows(const ForwardParams& params, int rows) {
  return Config::packed ? rows / params.group : rows;
}

template <class Config>
INGOT_FN Tile tile_of(const ForwardParams& params, int unit) {
  using Shape = ForwardShape<Config>;
  const int wave = unit / (params.tiles * params.heads_at_once);
  const int head_first = wave * params.heads_at_once;
  const int heads = min(params.heads_at_once, params.heads_total - head_first);
  const int place = unit - wave * params.tiles * params.heads_at_once;
  const int index = params.tiles - 1 - place / heads;
  const int head_total = head_first + place % heads;

  Tile tile;
  tile.batch = head_total / params.num_heads;
  tile.head = head_total - tile.batch * params.num_heads;
  tile.head_kv = Config::packed ? tile.head : tile.head / params.group;
  const int rows = query_rows<Config>(params, Shape::block_m);
  tile.row = (index * Shape::cluster + (Shape::cluster > 1 ? cluster_rank() : 0)) * rows;
  const ScoreParams& score = params.score;
  Index col_first = 0, col_last = score.seqlen_k;
  if (Config::masked) {
    const Index last = min(static_cast<Index>(tile.row + rows), score.seqlen_q) - 1;
    const auto band = parts_of<Config>(params.parts).band(score, tile.batch);
    col_first = col_begin(band, tile.row);
    col_last = col_end(band, last);
  }
  tile.begin = static_cast<int>(col_first) / Shape::block_n;
  tile.end = (static_cast<int>(col_last) + Shape::block_n - 1) / Shape::block_n;
  if (col_last <= col_first) tile.end = tile.begin;
  return tile;
}

// Barriers of the block; called by all threads once.
template <class Config>
INGOT_FN void init_barriers(u32 shared) {
  using Shape = ForwardShape<Config>;
  if (threadIdx.x == 0) {
    clear_mark();
    for (int w = 0; w < Shape::row_groups; ++w) {
      mbarrier_init(shared + Shape::q_full + 8 * w, 1);
      mbarrier_init(shared + Shape::q_empty + 8 * w, 1);
    }
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(shared + Shape::k_full + 8 * i, 1);
      mbarrier_init(shared + Shape::v_full + 8 * i, 1);
      mbarrier_init(shared + Shape::k_empty + 8 * i, Shape::row_groups * Shape::cluster);
      mbarrier_init(shared + Shape::v_empty + 8 * i,
                    (Shape::wide ? 2 : Shape::warpgroups) * Shape::cluster);
    }
    for (int i = 0; i < Shape::messages; ++i) {
      mbarrier_init(shared + Shape::p_full + 8 * i, 128);
      mbarrier_init(shared + Shape::p_empty + 8 * i, 2);
    }
    mbarrier_init_done();
  }
  __syncthreads();
  if (Shape::cluster > 1) cluster_sync();
}

}  // namespace ingot
