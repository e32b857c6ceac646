// What the backward kernels of Hopper that keep keys in place have in common: sizes, a block's part
// of the work, and the warps that move tiles.
#pragma once

#include "cuda/kernels/dialect.h"  // before algorithm/

#include "algorithm/score.h"
#include "cuda/kernels/backward_params.h"
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/params.h"
#include "cuda/kernels/tma.cuh"

namespace ingot {

// What follows from a Config, and the map of shared memory.
template <class Config>
struct KeysShape {
  // Warpgroups have 64 keys each, or (wide) share 64 and make dv and dk.
  static constexpr bool wide = Config::wide;
  static constexpr int stages = Config::stages, key_groups = wide ? 1 : 2;
  static constexpr int planes = Config::planes;  // terms of every tensor
  static constexpr int block_keys = 64 * key_groups;
  static constexpr int dim = (Config::head_dim + 15) / 16 * 16;  // columns the products take
  static constexpr int dim_v = (Config::head_dim_v + 15) / 16 * 16;
  static constexpr int panels = (dim + 63) / 64, panels_v = (dim_v + 63) / 64;
  static constexpr int threads = 384, loader_registers = wide ? 40 : 24;
  static constexpr int registers = wide ? 232 : 240;

  // Bytes. Tiles are planes of panels of 64 columns, [rows][128 bytes].
  static constexpr int panel = 64 * 128, key_panel = block_keys * 128;
  static constexpr int q_tile = planes * panels * panel, dout_tile = planes * panels_v * panel;
  static constexpr int k_at = 0, v_at = planes * panels * key_panel;
  static constexpr int q_at = v_at + planes * panels_v * key_panel;
  static constexpr int dout_at = q_at + stages * q_tile;
  static constexpr int ds_at = dout_at + stages * dout_tile;  // two a group of keys
  static constexpr int p_at = ds_at + 2 * key_groups * panel;
  static constexpr int statistics_at = p_at + (wide ? 2 * panel : 0);  // lse, delta of 64 queries
  static constexpr int query_at = statistics_at + stages * 512;  // number of their first, and the
                                                                 // 64 rows of all heads they are
  static constexpr int keys_full = query_at + 8 * stages;
  static constexpr int q_full = keys_full + 8, dout_full = q_full + 8 * stages;
  static constexpr int q_empty = dout_full + 8 * stages, dout_empty = q_empty + 8 * stages;
  static constexpr int ds_full = dout_empty + 8 * stages, ds_empty = ds_full + 16 * key_groups;
  static constexpr int p_full = ds_empty + 16 * key_groups, p_empty = p_full + 16;
  static constexpr int bytes = p_empty + 16;
};

// A slot of a ring, and the parity that those pass who wait for it to be full.
template <int Slots>
struct RingPlace {
  int slot = 0;
  u32 phase = 0;

  INGOT_FN RingPlace next() const {
    return slot + 1 == Slots ? RingPlace{0, phase ^ 1} : RingPlace{slot + 1, phase};
  }
};

// The keys of a block of threads, and the blocks of 64 queries [begin, end) that see one of them.
struct KeyTile {
  int batch, head_kv;
  int key;     // first
  int stored;  // first of this launch's key that has it, in ds
  int matrix;  // of the first query head, in ds
  int begin, end;
};

template <class Config>
INGOT_FN KeyTile key_tile(const StoredParams& params, int block) {
  constexpr int keys = KeysShape<Config>::block_keys;
  const int head = block / params.tiles;
  const int head_total = params.stored.head_first / params.group + head;
  KeyTile tile;
  tile.batch = head_total / params.num_heads_kv;
  tile.head_kv = head_total - tile.batch * params.num_heads_kv;
  tile.stored = (block - head * params.tiles) * keys;
  tile.key = params.stored.key_first + tile.stored;
  tile.matrix = head * params.group;
  const ScoreParams& score = params.score;
  int first = 0, last = static_cast<int>(score.seqlen_q);
  if (Config::masked) {
    const Index key_last = min(static_cast<Index>(tile.key + keys), score.seqlen_k) - 1;
    first = static_cast<int>(row_begin(score, tile.key));
    last = static_cast<int>(row_end(score, key_last));
  }
  tile.begin = first / 64;
  tile.end = last > first ? (last + 63) / 64 : tile.begin;
  return tile;
}

template <class Config>
struct KeysSteps {
  using Shape = KeysShape<Config>;
  using Stage = RingPlace<Shape::stages>;

  const StoredParams& params;
  const u32 shared;

  INGOT_FN u32 q_tile(Stage at) const { return shared + Shape::q_at + at.slot * Shape::q_tile; }
  INGOT_FN u32 dout_tile(Stage at) const {
    return shared + Shape::dout_at + at.slot * Shape::dout_tile;
  }
  INGOT_FN u32 lse(Stage at) const { return shared + Shape::statistics_at + at.slot * 512; }
  INGOT_FN u32 delta(Stage at) const { return lse(at) + 256; }
  // What consumers would count along costs registers that they lack: the loader tells them.
  INGOT_FN u32 query(Stage at) const { return shared + Shape::query_at + 8 * at.slot; }
  INGOT_FN u32 q_full(Stage at) const { return shared + Shape::q_full + 8 * at.slot; }
  INGOT_FN u32 dout_full(Stage at) const { return shared + Shape::dout_full + 8 * at.slot; }
  INGOT_FN u32 q_empty(Stage at) const { return shared + Shape::q_empty + 8 * at.slot; }
  INGOT_FN u32 dout_empty(Stage at) const { return shared + Shape::dout_empty + 8 * at.slot; }
  INGOT_FN u32 keys_full() const { return shared + Shape::keys_full; }
  // log2 of the sums of large rows, from this thread's first query of the stage on.
  INGOT_FN const float* log2_sums(Stage at) const {
    const Index row = static_cast<Index>(load_shared(query(at) + 4)) * 64 + threadIdx.x % 4 * 2;
    return params.delta + log2_sums_behind(params.delta - params.lse_log2) + row;
  }
  // Two tiles of dS of a group of keys; P of the wide form.
  INGOT_FN u32 ds_tile(int keys, int slot) const {
    return shared + Shape::ds_at + (2 * keys + slot) * Shape::panel;
  }
  // A tile of P for each thread in turn, 16 registers as four times 16 bytes.
  INGOT_FN u32 p_tile(int slot) const {
    return shared + Shape::p_at + slot * Shape::panel + threadIdx.x % 128 * 16;
  }
  INGOT_FN u32 p_full(int slot) const { return shared + Shape::p_full + 8 * slot; }
  INGOT_FN u32 p_empty(int slot) const { return shared + Shape::p_empty + 8 * slot; }
  INGOT_FN u32 ds_full(int keys, int slot) const {
    return shared + Shape::ds_full + 8 * (2 * keys + slot);
  }
  INGOT_FN u32 ds_empty(int keys, int slot) const {
    return shared + Shape::ds_empty + 8 * (2 * keys + slot);
  }

  template <int Panels>
  INGOT_FN void load_panels(const TensorMap& map, BoxAt at, int rows, u32 to, u32 barrier) const {
#pragma unroll 1
    for (at.x[4] = 0; at.x[4] < Shape::planes; ++at.x[4]) {
#pragma unroll 1
      for (int panel = 0; panel < Panels; ++panel, to += rows * 128) {
        at.x[0] = panel * 64;
        tma_load(to, map, at, barrier);
      }
    }
  }

  // One thread brings K and V, then Q, dO, lse and delta of the queries.
  INGOT_FN void load(const KeyTile& tile, const TensorMap& k, const TensorMap& v,
                     const TensorMap& q, const TensorMap& dout) const {
    const BoxAt at_keys{{0, tile.key, tile.head_kv, tile.batch, 0}};
    mbarrier_arrive_expect(keys_full(), Shape::q_at);
    load_panels<Shape::panels>(k, at_keys, Shape::block_keys, shared + Shape::k_at, keys_full());
    load_panels<Shape::panels_v>(v, at_keys, Shape::block_keys, shared + Shape::v_at, keys_full());
    Stage at;
    const int num_heads = params.num_heads_kv * params.group;
#pragma unroll 1
    for (int i = 0; i < params.group; ++i) {
      const int head = tile.head_kv * params.group + i;
      const Index row =
          static_cast<Index>(tile.batch * num_heads + head) * params.stored.rows_padded;
#pragma unroll 1
      for (int block = tile.begin; block < tile.end; ++block) {
        const BoxAt at_queries{{0, block * 64, head, tile.batch, 0}};
        if (!mbarrier_await(q_empty(at), at.phase ^ 1)) return;
        store_shared(query(at), block * 64);
        store_shared(query(at) + 4, static_cast<int>(row / 64) + block);
        mbarrier_arrive_expect(q_full(at), Shape::q_tile + 256);
        load_panels<Shape::panels>(q, at_queries, 64, q_tile(at), q_full(at));
        bulk_load(lse(at), params.lse_log2 + row + block * 64, 256, q_full(at));
        if (!mbarrier_await(dout_empty(at), at.phase ^ 1)) return;
        mbarrier_arrive_expect(dout_full(at), Shape::dout_tile + 256);
        load_panels<Shape::panels_v>(dout, at_queries, 64, dout_tile(at), dout_full(at));
        bulk_load(delta(at), params.delta + row + block * 64, 256, dout_full(at));
        at = at.next();
      }
    }
  }

  // One thread a group of keys takes their tiles of dS away.
  INGOT_FN void store(const KeyTile& tile, const TensorMap& ds, int keys) const {
    RingPlace<2> at;
    u32 read = 0;  // the barrier of the tile before
#pragma unroll 1
    for (int i = 0; i < params.group; ++i) {
#pragma unroll 1
      for (int plane = 0, block = tile.begin; block < tile.end;) {
        mbarrier_wait(ds_full(keys, at.slot), at.phase);
        if (params.stores_ds != 0) {
          const BoxAt to{{block * 64, tile.stored + keys * 64, plane, tile.matrix + i, 0}};
          tma_store(ds, to, ds_tile(keys, at.slot));
        }
        if (++plane == Shape::planes) plane = 0, ++block;
        bulk_commit();
        bulk_wait_read<1>();
        if (read != 0) mbarrier_arrive(read);
        read = ds_empty(keys, at.slot);
        at = at.next();
      }
    }
    bulk_wait<0>();
  }
};

// Called by all threads once. Arrivals: one of each warpgroup that uses a tile, or of each of the
// warps that read the numbers beside it.
template <class Config>
INGOT_FN void init_key_barriers(u32 shared) {
  using Shape = KeysShape<Config>;
  if (threadIdx.x == 0) {
    clear_mark();
    mbarrier_init(shared + Shape::keys_full, 1);
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(shared + Shape::q_full + 8 * i, 1);
      mbarrier_init(shared + Shape::dout_full + 8 * i, 1);
      mbarrier_init(shared + Shape::q_empty + 8 * i, Shape::wide ? 5 : 2);
      mbarrier_init(shared + Shape::dout_empty + 8 * i, Shape::wide ? 5 : 2);
    }
    for (int i = 0; i < 2 * Shape::key_groups; ++i) {
      mbarrier_init(shared + Shape::ds_full + 8 * i, 4);
      mbarrier_init(shared + Shape::ds_empty + 8 * i, 1);
    }
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(shared + Shape::p_full + 8 * i, 4);
      mbarrier_init(shared + Shape::p_empty + 8 * i, 4);
    }
    mbarrier_init_done();
  }
  __syncthreads();
}

}  // namespace ingot
