// The forward pass of a simdgroup that owns its query rows: FlashAttention-2 (Dao, 2023), algorithm
// 1, with O in registers.
#pragma once
#include "metal/kernels/keys.h"

namespace ingot {

template <class Config, class Keys, class Q, bool packed>
struct OwnRows {
  static constexpr constant int row_tiles = Config::rows_per_simdgroup / 8;
  static constexpr constant int key_tiles = Config::block_n / 8;
  static constexpr constant int value_tiles = tiles_of(Config::head_dim_v);

  thread Keys* keys;
  thread Q* queries;
  Pairs<Config, packed> pairs;
  RowState<row_tiles> softmax;
  Tile<float> O[row_tiles * value_tiles];

  /// One block of keys.
  template <bool edge>
  void attend(KeyBlock block) {
    const Lane lane = queries->lane;
    Tile<float> S[row_tiles * key_tiles];
    INGOT_UNROLL for (int i = 0; i < row_tiles * key_tiles; ++i) set_zero(S[i]);
    keys->template add_scores<edge>(S, *queries, block);
    pairs.template make_scores<row_tiles, key_tiles, edge>(S, block, lane);

    Tile<typename Config::pv_reg> P[row_tiles * key_tiles];
    const float factor_log2 = outer_factor<Config>(pairs.score) * log2_e;
    float correction[row_tiles];
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const float highest = softmax.template highest<key_tiles>(S, i);
      correction[i] =
          softmax.template update<key_tiles>(S, P, i, highest, factor_log2, pairs, block, lane);
    }
    rescale<row_tiles, value_tiles>(O, correction);
    keys->template add_values<edge>(O, P, lane, block);
  }

  /// The blocks of keys from `begin` to `end` of which the rows at positions [first, last] see
  /// some.
  void run(Index begin, Index end, Index first, Index last, bool is_first_split = true) {
    softmax.start(pairs, queries->lane, is_first_split, true);
    INGOT_UNROLL for (int i = 0; i < row_tiles * value_tiles; ++i) set_zero(O[i]);
    const Index own_begin = col_begin(pairs.band, first);
    const Index own_end = col_end(pairs.band, last);
    for (Index col = begin; col < end; col += Config::block_n) {
      const KeyBlock block{col, int(clamp_index(pairs.score.seqlen_k - col, 0, Config::block_n))};
      const Index last_col = col + Config::block_n - 1;
      if (first > last || last_col < own_begin || col >= own_end) {
        if constexpr (Keys::staged) keys->skip(*queries, queries->lane, block);
      } else if (block.cols < Config::block_n ||
                 (Config::masked && !is_full(pairs.band, first, last, col, last_col))) {
        attend<true>(block);
      } else {
        attend<false>(block);
      }
    }
    softmax.finish();
    multiply_kept<Config, row_tiles * value_tiles>(O, pairs.own);
    clear_unseen<Config, row_tiles, value_tiles>(O, softmax);
  }

  template <class X>
  void store(X o, Extent extent) {
    OutputStep<row_tiles, value_tiles, Columns::known, X> step{O, &softmax, o, queries->lane,
                                                               extent};
    for_panels<Config::head_dim_v, Config::panel, false>(step);
  }
};

/// Position of a thread in the grid.
struct Place {
  uint3 group;
  uint3 groups;  // how many there are
  short simdgroup;
  short index;  // of the thread in its simdgroup
  Lane lane;
};

}  // namespace ingot
