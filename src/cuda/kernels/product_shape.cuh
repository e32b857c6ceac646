// What follows from a Config of product_sm90: sizes, the map of shared memory, and the tiles that a
// block takes in turn.
#pragma once

#include "algorithm/score.h"
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/product_params.h"
#include "cuda/kernels/stored_tiles.cuh"

namespace ingot {

template <class Config>
struct ProductShape {
  static constexpr int warpgroups = Config::warpgroups, stages = Config::stages;
  static constexpr int planes = Config::planes, columns = Config::columns;
  static constexpr int block_m = Config::block_m;
  static constexpr int row_blocks = block_m / 64;               // of 64 rows
  static constexpr int of_warpgroup = row_blocks / warpgroups;  // of them, the accumulators of one
  static constexpr int panels = (columns + 63) / 64;            // of 64 columns of B
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int loader_registers = warpgroups == 3 ? 32 : 40;
  static constexpr int registers = warpgroups == 3 ? 160 : 232;

  // Bytes. A stage is the planes of A, row blocks of 64 by 64 each, and the planes of B, panels of
  // 64 rows of the contraction by 64 columns.
  static constexpr int box = 64 * 128;
  static constexpr int a_plane = row_blocks * box, b_plane = panels * box;
  static constexpr int b_in_stage = planes * a_plane;
  static constexpr int stage = planes * (a_plane + b_plane);
  static constexpr int full = stages * stage, empty = full + 8 * stages;
  static constexpr int bytes = empty + 8 * stages;
  static_assert(row_blocks % warpgroups == 0, "rows: 64 times a multiple of the warpgroups");
};

// A tile of rows of one head of the result, by one slice of its columns, and the blocks of 64 of
// the contraction that it takes: of each query head of the group in turn where the rows are keys.
struct ProductTile {
  int head;  // of out, within this launch
  int batch, head_in_batch;
  int row, column;  // first
  int rows_end;     // of the rows that are there
  int begin, end;   // blocks, counted from query 0 or from the first key of the chunk
  int matrix;       // of the first contraction
  int head_b;
};

// Rows and blocks of the contraction that are seen: of queries.
template <class Config>
INGOT_FN void see_keys(const ProductParams& params, ProductTile& tile) {
  const ScoreParams& score = params.score;
  const int first = params.stored.key_first, last = first + params.stored.keys;
  int begin = first, end = last;
  tile.rows_end = static_cast<int>(score.seqlen_q);
  if (Config::masked) {
    const int row_last = min(tile.row + Config::block_m, tile.rows_end) - 1;
    begin = max(begin, static_cast<int>(col_begin(score, tile.row)));
    end = min(end, static_cast<int>(col_end(score, row_last)));
  }
  tile.begin = (begin - first) / stored_tile;
  tile.end = end > begin ? (end - first + stored_tile - 1) / stored_tile : tile.begin;
}

// The same of keys.
template <class Config>
INGOT_FN void see_queries(const ProductParams& params, ProductTile& tile) {
  const ScoreParams& score = params.score;
  int begin = 0, end = static_cast<int>(score.seqlen_q);
  tile.row += params.stored.key_first;
  tile.rows_end = params.stored.key_first + params.stored.keys;
  if (Config::masked) {
    const int row_last = min(tile.row + Config::block_m, tile.rows_end) - 1;
    begin = static_cast<int>(row_begin(score, tile.row));
    end = static_cast<int>(row_end(score, row_last));
  }
  tile.begin = begin / stored_tile;
  tile.end = end > begin ? (end + stored_tile - 1) / stored_tile : tile.begin;
}

// Slices of a tile lie together, so that they share A; then tiles of the heads that share the L2
// cache, under a causal mask the longest first.
template <class Config>
INGOT_FN ProductTile product_tile(const ProductParams& params, int unit) {
  ProductTile tile;
  tile.column = unit % params.slices * Config::columns;
  unit /= params.slices;
  const int wave = unit / (params.tiles * params.heads_at_once);
  const int head_first = wave * params.heads_at_once;
  const int heads = min(params.heads_at_once, params.heads - head_first);
  const int place = unit - wave * params.tiles * params.heads_at_once;
  const int index = place / heads;
  tile.head = head_first + place % heads;
  const int head_total = params.head_first + tile.head;
  if (Config::by_keys) {
    const int heads_kv = params.num_heads / params.group;
    tile.batch = head_total / heads_kv;
    tile.head_in_batch = head_total - tile.batch * heads_kv;
    tile.head_b = tile.head_in_batch * params.group + params.sum_first;
    tile.matrix = head_total * params.group + params.sum_first - params.stored.head_first;
    tile.row = index * Config::block_m;
    see_queries<Config>(params, tile);
  } else {
    tile.batch = head_total / params.num_heads;
    tile.head_in_batch = head_total - tile.batch * params.num_heads;
    tile.head_b = tile.head_in_batch / params.group;
    tile.matrix = head_total - params.stored.head_first;
    tile.row = (params.tiles - 1 - index) * Config::block_m;
    see_keys<Config>(params, tile);
  }
  return tile;
}

}  // namespace ingot
