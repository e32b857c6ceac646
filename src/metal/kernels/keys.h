// Where the right-hand operands K and V come from: straight from device memory (family 9 and newer
// have the cache for it), or through two slots of threadgroup memory that the simdgroups share.
// Both offer add_scores (S += Q K^T) and add_values (O += P V) for one block of keys.
#pragma once
#include "metal/kernels/attend.h"

namespace ingot {

template <class Config>
struct KeyShape {
  static constexpr constant int key_tiles = Config::block_n / 8;
  static constexpr constant int value_tiles = tiles_of(Config::head_dim_v);
  using K = DeviceRows<Config, const typename Config::k_type, Config::k_strided>;
  using V = DeviceRows<Config, const typename Config::v_type, Config::v_strided>;
};

template <class Config>
struct DirectKeys {
  using Shape = KeyShape<Config>;
  static constexpr constant bool staged = false;

  typename Shape::K k;
  typename Shape::V v;

  template <bool edge, class Q>
  void add_scores(thread Tile<float>* S, thread Q& queries, KeyBlock block) {
    ScoreStep<Config, Shape::key_tiles, edge, false, Q, typename Shape::K> step{
        S, &queries, k.from(block.col, 0), 0, Extent{block.cols, Config::head_dim}};
    for_panels<Config::head_dim, Config::panel, !Config::cache_lhs>(step);
  }

  template <bool edge>
  void add_values(thread Tile<float>* O, thread Tile<typename Config::pv_reg>* P, Lane lane,
                  KeyBlock block) {
    ValueStep<Config, Shape::key_tiles, Shape::value_tiles, edge, Columns::known, typename Shape::V>
        step{O, P, v.from(block.col, 0), lane, 0, Extent{block.cols, Config::head_dim_v}};
    for_panels<Config::head_dim_v, Config::panel, false>(step);
  }
};

template <class Config>
struct StagedKeys {
  using Shape = KeyShape<Config>;
  static constexpr constant bool staged = true;
  static constexpr constant int threads = 32 * Config::simdgroups;
  static constexpr constant int key_cols = smaller(Config::block_d, 8 * tiles_of(Config::head_dim));
  static constexpr constant int value_cols = smaller(Config::block_d, 8 * Shape::value_tiles);
  static constexpr constant int key_slabs = (Config::head_dim + key_cols - 1) / key_cols;
  static constexpr constant int value_slabs = (Config::head_dim_v + value_cols - 1) / value_cols;
  using KeySlab = Slab<typename Config::k_type, Config::block_n, key_cols, threads>;
  using ValueSlab = Slab<typename Config::v_type, Config::block_n, value_cols, threads>;
  static constexpr constant int slot_bytes = larger(KeySlab::bytes, ValueSlab::bytes);

  typename Shape::K k;
  typename Shape::V v;
  threadgroup uchar* memory;  // 2 * slot_bytes
  int thread_index;
  Index end;  // of the keys that are looked at: the next block's first slab is fetched before it
  Index seqlen_k;
  int full;  // the slot to be read
  KeySlab key_slab;
  ValueSlab value_slab;

  threadgroup uchar* slot(int which) const { return memory + which * slot_bytes; }
  Extent extent(Index col, int cols) const {
    return Extent{int(clamp_index(seqlen_k - col, 0, Config::block_n)), cols};
  }
  void fetch_key(Index col, int slab) {
    key_slab.fetch(k.from(col, 0), thread_index, 0, slab * key_cols, extent(col, Config::head_dim));
  }
  void fetch_value(Index col, int slab) {
    value_slab.fetch(v.from(col, 0), thread_index, 0, slab * value_cols,
                     extent(col, Config::head_dim_v));
  }
  void turn() {
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    full ^= 1;
  }

  void start(Index col) {
    full = 1;
    fetch_key(col, 0);
    key_slab.commit(slot(0), thread_index);
    turn();
  }

  /// The slab `s` of K, dim columns wide, while the next one is on its way.
  template <int dim, bool used, class Q>
  void score_slab(thread Tile<float>* S, thread Q& queries, Index col, int s) {
    const bool last = s + 1 == key_slabs;
    if (last) {
      fetch_value(col, 0);
    } else {
      fetch_key(col, s + 1);
    }
    if constexpr (used) {
      ScoreStep<Config, Shape::key_tiles, false, true, Q, typename KeySlab::Staged> step{
          S, &queries, KeySlab::staged(slot(full)), s * (key_cols / 8), Extent{0, 0}};
      for_panels<dim, Config::panel, false>(step);
    }
    if (last) {
      value_slab.commit(slot(full ^ 1), thread_index);
    } else {
      key_slab.commit(slot(full ^ 1), thread_index);
    }
    turn();
  }

  template <int dim, bool used>
  void value_slab_step(thread Tile<float>* O, thread Tile<typename Config::pv_reg>* P, Lane lane,
                       Index col, int s) {
    const bool last = s + 1 == value_slabs;
    const Index next = col + Config::block_n;
    if (!last) {
      fetch_value(col, s + 1);
    } else if (next < end) {
      fetch_key(next, 0);
    }
    if constexpr (used) {
      ValueStep<Config, Shape::key_tiles, Shape::value_tiles, false, Columns::all_there,
                typename ValueSlab::Staged>
          step{O, P, ValueSlab::staged(slot(full)), lane, s * (value_cols / 8), Extent{0, 0}};
      for_panels<dim, Config::panel, false>(step);
    }
    if (!last) {
      value_slab.commit(slot(full ^ 1), thread_index);
    } else if (next < end) {
      key_slab.commit(slot(full ^ 1), thread_index);
    }
    turn();
  }

  template <bool used, class Q>
  void scores(thread Tile<float>* S, thread Q& queries, Index col) {
    if constexpr (Config::cache_lhs) {
      INGOT_UNROLL for (int s = 0; s + 1 < key_slabs; ++s) {
        score_slab<key_cols, used>(S, queries, col, s);
      }
    } else {
      _Pragma("clang loop unroll(disable)") for (int s = 0; s + 1 < key_slabs; ++s) {
        score_slab<key_cols, used>(S, queries, col, s);
      }
    }
    score_slab<Config::head_dim - (key_slabs - 1) * key_cols, used>(S, queries, col, key_slabs - 1);
  }

  template <bool used>
  void values(thread Tile<float>* O, thread Tile<typename Config::pv_reg>* P, Lane lane,
              Index col) {
    INGOT_UNROLL for (int s = 0; s + 1 < value_slabs; ++s) {
      value_slab_step<value_cols, used>(O, P, lane, col, s);
    }
    value_slab_step<Config::head_dim_v - (value_slabs - 1) * value_cols, used>(O, P, lane, col,
                                                                               value_slabs - 1);
  }

  template <bool edge, class Q>
  void add_scores(thread Tile<float>* S, thread Q& queries, KeyBlock block) {
    scores<true>(S, queries, block.col);
  }
  template <bool edge>
  void add_values(thread Tile<float>* O, thread Tile<typename Config::pv_reg>* P, Lane lane,
                  KeyBlock block) {
    values<true>(O, P, lane, block.col);
  }
  /// Takes part in the copies of a block of which its own rows see nothing.
  template <class Q>
  void skip(thread Q& queries, Lane lane, KeyBlock block) {
    scores<false>(nullptr, queries, block.col);
    values<false>(nullptr, nullptr, lane, block.col);
  }
};

}  // namespace ingot
