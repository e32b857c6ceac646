// What follows from a Config of scores_sm90: sizes, the map of shared memory, and the tiles that a
// block takes in turn.
#pragma once

#include "algorithm/score.h"
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/scores_params.h"
#include "cuda/kernels/stored_tiles.cuh"

namespace ingot {

template <class Config>
struct ScoresShape {
  static constexpr int warpgroups = 2, stages = Config::stages, planes = Config::planes;
  static constexpr int keys = 64 * warpgroups, queries = Config::block_m;
  static constexpr int chunks = (Config::head_dim + 63) / 64;  // of the contractions
  static constexpr int chunks_v = (Config::head_dim_v + 63) / 64;
  static constexpr int count = queries / 2;  // accumulators of a thread
  // Results leave 128 queries at a time.
  static constexpr int part = 128, parts = queries / part, part_count = part / 2;
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int loader_registers = 24, registers = 240;
  static_assert(Config::block_n == keys && queries % part == 0,
                "tile: 128 keys, 128 or 256 queries");

  // Bytes. A stage is 64 columns of the planes of K (or V), then of Q (or dO).
  static constexpr int k_box = keys * 128, q_box = queries * 128;
  static constexpr int stage = planes * (k_box + q_box);
  static constexpr int tile = stored_tile * 128, out = part / stored_tile * tile;
  static constexpr int out_at = stages * stage, statistics_at = out_at + warpgroups * out;
  static constexpr int statistics = queries * 4;              // lse, then delta
  static constexpr int next_at = statistics_at + statistics;  // a ScoresTile
  static constexpr int full = next_at + 16, empty = full + 8 * stages;
  static constexpr int statistics_full = empty + 8 * stages;
  static constexpr int statistics_empty = statistics_full + 8;
  static constexpr int bytes = statistics_empty + 8;
};

// A tile of keys by queries of one query head.
struct ScoresTile {
  int matrix;      // less than 0: there is no tile
  int query, key;  // first
};

// The tiles of a block: every gridDim.x-th of those with a visible pair. They lie in rows: for a
// head, some key tiles and one query tile, those of the key tiles that its queries see.
template <class Config>
struct ScoresScan {
  const ScoresParams& params;
  int row = 0, place = static_cast<int>(blockIdx.x);
  int begin = 0;

  // The key tiles that the queries of this row see, from `begin` on.
  INGOT_FN int count_row() {
    using Shape = ScoresShape<Config>;
    const ScoreParams& score = params.score;
    const int super = row / params.query_tiles % supers();
    begin = super * params.tiles_at_once;
    int end = min(begin + params.tiles_at_once, params.key_tiles);
    if (Config::masked) {
      const Index first = static_cast<Index>(query());
      const Index last = min(first + Shape::queries, score.seqlen_q) - 1;
      const int key_first = params.stored.key_first;
      const int from = static_cast<int>(col_begin(score, first)) - key_first;
      const int to = static_cast<int>(col_end(score, last)) - key_first;
      if (to <= from) return 0;
      begin = max(begin, max(from, 0) / Shape::keys);
      end = min(end, (to + Shape::keys - 1) / Shape::keys);
    }
    return max(end - begin, 0);
  }
  INGOT_FN int supers() const {
    return (params.key_tiles + params.tiles_at_once - 1) / params.tiles_at_once;
  }
  INGOT_FN int query() const { return row % params.query_tiles * Config::block_m; }

  // False where there is none left.
  INGOT_FN bool find() {
    const int rows = params.matrices * supers() * params.query_tiles;
    for (; row < rows; ++row) {
      const int count = count_row();
      if (place < count) return true;
      place -= count;
    }
    return false;
  }
  INGOT_FN void next() { place += static_cast<int>(gridDim.x); }

  INGOT_FN ScoresTile tile() {
    if (!find()) return {-1, 0, 0};
    return {row / params.query_tiles / supers(), query(),
            params.stored.key_first + (begin + place) * Config::block_n};
  }
};

}  // namespace ingot
