// What follows from a Config of backward_fused_sm90: sizes, the map of shared memory, and a block's
// place in the grid.
#pragma once

#include "algorithm/score.h"
#include "cuda/kernels/backward_params.h"
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/params.h"

namespace ingot {

// Four warpgroups: two with 64 keys each, one that makes dQ, one that loads and asks for turns.
template <class Config>
struct FusedShape {
  static constexpr int block_m = 64, block_n = 128;  // queries of a step, keys of a block
  static constexpr int dim = (Config::head_dim + 15) / 16 * 16;  // columns the products take
  static constexpr int dim_v = (Config::head_dim_v + 15) / 16 * 16;
  static constexpr int threads = 512;
  static constexpr int key_registers = 208, sum_registers = 72, loader_registers = 24;
  static constexpr int stages = Config::stages;  // of q and dout
  static constexpr int slots = 4;                // of dS
  static constexpr int sum_elements = block_m * dim;
  static_assert(dim <= 64 && dim_v <= 64, "a panel of 64 columns a tile");

  // Bytes. Tiles are [rows][128 bytes].
  static constexpr int tile = 64 * 128, statistics = 2 * block_m * 4;
  static constexpr int k_at = 0, v_at = k_at + 2 * tile, q_at = v_at + 2 * tile;
  static constexpr int dout_at = q_at + stages * tile, ds_at = dout_at + stages * tile;
  static constexpr int statistics_at = ds_at + slots * 2 * tile;
  static constexpr int barriers_at = statistics_at + stages * statistics;
  static constexpr int kv_full = barriers_at, full = kv_full + 8, empty = full + 8 * stages;
  static constexpr int ds_full = empty + 8 * stages, ds_empty = ds_full + 8 * slots;
  static constexpr int turn = ds_empty + 8 * slots, added = turn + 16;
  static constexpr int bytes = added + 16 + 1023;  // 1023: to align the start
};

// The keys of a block, and the query blocks [begin, end) that see some of them.
struct KeyBlock {
  int batch, head_kv, index;
  int key;  // first
  int begin, end;

  INGOT_FN int count() const { return end - begin; }
};

INGOT_FN int ceil_64(Index x) { return static_cast<int>((x + 63) / 64); }

// Blocks of a head are in the grid from the first to the last key, or the other way round; those of
// heads_at_once heads take turns. The long ones of a mask come first.
template <class Config>
INGOT_FN KeyBlock key_block(const FusedParams& params) {
  const int wave = static_cast<int>(blockIdx.x) / (params.key_blocks * params.heads_at_once);
  const int head_first = wave * params.heads_at_once;
  const int heads = min(params.heads_at_once, params.heads - head_first);
  const int place = static_cast<int>(blockIdx.x) - head_first * params.key_blocks;
  const int index = place / heads;
  const int head = params.head_first + head_first + place % heads;
  KeyBlock block;
  block.batch = head / params.num_heads_kv;
  block.head_kv = head - block.batch * params.num_heads_kv;
  block.index = params.last_first ? params.key_blocks - 1 - index : index;
  block.key = block.index * 128;
  Index begin = 0, end = params.score.seqlen_q;
  if (Config::masked) {
    const Index last = min(static_cast<Index>(block.key) + 127, params.score.seqlen_k - 1);
    begin = row_begin(params.score, block.key);
    end = row_end(params.score, last);
  }
  block.begin = static_cast<int>(begin) / 64;
  block.end = end > begin ? ceil_64(end) : block.begin;
  return block;
}

// Key blocks [begin, end) with keys that some of 64 queries see.
template <class Config>
INGOT_FN void key_blocks_of(const FusedParams& params, int query_block, int& begin, int& end) {
  begin = 0;
  end = params.key_blocks;
  if constexpr (Config::masked) {
    const Index row = static_cast<Index>(query_block) * 64;
    const Index first = col_begin(params.score, row);
    const Index past = col_end(params.score, min(row + 63, params.score.seqlen_q - 1));
    begin = static_cast<int>(first / 128);
    end = past > first ? static_cast<int>((past + 127) / 128) : begin;
  }
}

// The steps of a block in turn: every query head of the group, every query block.
//
// All blocks of a head go through queries the same way, so that a sum is passed on to a block that
// comes to it later. Under a window the way is against that of the keys: a block then meets first
// the queries that blocks before it met a while ago.
struct Walk {
  int head;   // of the group
  int block;  // of 64 queries

  INGOT_FN static int first(const FusedParams& params, const KeyBlock& keys) {
    return params.last_first ? keys.begin : keys.end - 1;
  }
  INGOT_FN static int after(const FusedParams& params, const KeyBlock& keys, int block) {
    const int last = params.last_first ? keys.end - 1 : keys.begin;
    return block == last ? first(params, keys) : block + (params.last_first ? 1 : -1);
  }
  INGOT_FN Walk(const FusedParams& params, const KeyBlock& keys)
      : head(0), block(first(params, keys)) {}
  INGOT_FN void next(const FusedParams& params, const KeyBlock& keys) {
    const int to = after(params, keys, block);
    head += to == first(params, keys) ? 1 : 0;
    block = to;
  }
};

// Which head and block of queries a step is about.
INGOT_FN int query_head(const FusedParams& params, const KeyBlock& keys, const Walk& walk) {
  return keys.head_kv * params.group + walk.head;
}
INGOT_FN int head_of_batch(const FusedParams& params, const KeyBlock& keys, const Walk& walk) {
  return keys.batch * params.num_heads + query_head(params, keys, walk);
}

}  // namespace ingot
