// The forward pass where the simdgroups of a threadgroup share their query rows, for head_dim_v too
// large for the registers of one: each takes a part of the keys of a block for S, and a part of the
// columns of O. P and the maxima of rows pass through threadgroup memory. No product is done twice,
// and every element of K and V is read once a threadgroup.
#pragma once
#include "metal/kernels/attend.h"

namespace ingot {

/// Threadgroup memory: P, the maxima (at the end the sums) of every row in every simdgroup, and Q:
/// all of it where it fits, else slabs of block_d columns in two slots.
template <class Config>
struct SharedMemory {
  static constexpr constant int rows = Config::rows_per_simdgroup;
  static constexpr constant int head_cols = 8 * tiles_of(Config::head_dim);
  static constexpr constant int slab_cols =
      Config::cache_lhs ? head_cols : smaller(Config::block_d, head_cols);
  using P = typename Config::pv_reg;
  using QSlab = Slab<typename Config::q_type, rows, slab_cols, 32 * Config::simdgroups>;
  static constexpr constant int p_lead = Config::block_n + 16 / int(sizeof(P));
  static constexpr constant int p_bytes = rows * p_lead * int(sizeof(P));
  static constexpr constant int stat_bytes = rows * Config::simdgroups * 4;
  static constexpr constant int bytes =
      p_bytes + stat_bytes + (Config::cache_lhs ? 1 : 2) * QSlab::bytes;
  static_assert(p_bytes % 16 == 0 && stat_bytes % 16 == 0, "every part is aligned to 16 bytes");

  threadgroup uchar* memory;

  using PRows = Rows<P, threadgroup P*, int, 16 / int(sizeof(P))>;

  PRows p() const { return PRows{reinterpret_cast<threadgroup P*>(memory), p_lead, 1, 0, 0}; }
  /// [rows][simdgroups]
  threadgroup float* stats() const {
    return reinterpret_cast<threadgroup float*>(memory + p_bytes);
  }
  threadgroup uchar* q(int slot) const {
    return memory + p_bytes + stat_bytes + slot * QSlab::bytes;
  }
};

/// Q in threadgroup memory. DeviceQ: the rows it comes from, the threadgroup's first at `first`.
template <class Config, class DeviceQ>
struct StagedQueries {
  using Memory = SharedMemory<Config>;
  using QSlab = typename Memory::QSlab;
  using Panels = Queries<Config, typename QSlab::Staged, false>;
  static constexpr constant int slab_cols = Memory::slab_cols;
  static constexpr constant int slabs = (Config::head_dim + slab_cols - 1) / slab_cols;

  DeviceQ q;
  int first;
  Extent extent;
  Lane lane;
  int thread_index;
  Memory memory;
  int full;  // the slot to be read
  QSlab slab;

  void fetch(int s) {
    slab.fetch(q, thread_index, first, s * slab_cols,
               Extent{first + extent.rows, Config::head_dim});
  }
  void commit(int slot) { slab.commit(memory.q(slot), thread_index); }
  void start() {
    full = 0;
    fetch(0);
    commit(0);
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  }
  Panels panels() const {
    return Panels{QSlab::staged(memory.q(full)), Extent{Memory::rows, slab_cols}, lane, 0, {}};
  }
  void turn() {
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    full ^= 1;
  }
};

template <class Config, class DeviceQ, bool packed>
struct SharedRows {
  static constexpr constant int row_tiles = Config::rows_per_simdgroup / 8;
  static constexpr constant int own_keys = Config::block_n / Config::simdgroups;
  static constexpr constant int own_key_tiles = own_keys / 8;
  static constexpr constant int value_tiles = Config::block_dv / 8;
  using P = typename Config::pv_reg;
  static constexpr constant int p_panel = smaller(8 / int(sizeof(P)), own_key_tiles);
  using K = DeviceRows<Config, const typename Config::k_type, Config::k_strided>;
  using V = DeviceRows<Config, const typename Config::v_type, Config::v_strided>;

  using Q = StagedQueries<Config, DeviceQ>;

  thread Q* queries;
  K k;
  V v;
  int simdgroup;
  Pairs<Config, packed> pairs;
  RowState<row_tiles> softmax;
  Tile<float> O[row_tiles * value_tiles];

  int first_column() const { return simdgroup * Config::block_dv; }
  int columns() const { return smaller(Config::head_dim_v - first_column(), Config::block_dv); }

  /// Every simdgroup gives a number for each row; result: of all, reduced by max or sum in order.
  template <bool sum>
  void exchange(thread float* x) {
    const Lane lane = queries->lane;
    threadgroup float* stats = queries->memory.stats();
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      if (lane.col == 0) stats[(8 * i + lane.row) * Config::simdgroups + simdgroup] = x[i];
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      const threadgroup float* row = stats + (8 * i + lane.row) * Config::simdgroups;
      float all = row[0];
      INGOT_UNROLL for (int s = 1; s < Config::simdgroups; ++s) {
        all = sum ? all + row[s] : max_(all, row[s]);
      }
      x[i] = all;
    }
  }

  /// P of this simdgroup's keys, into threadgroup memory.
  void share(thread Tile<P>* tiles) {
    const auto rows = queries->memory.p().from(0, simdgroup * own_keys);
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      INGOT_UNROLL for (int c = 0; c < own_key_tiles; c += p_panel) {
        store_rows<p_panel, false>(tiles + i * own_key_tiles + c, rows, queries->lane, 8 * i, 8 * c,
                                   1.0f, Extent{8 * row_tiles, own_keys});
      }
    }
  }

  /// O += P V over all keys of the block, for the columns of this simdgroup.
  template <bool edge>
  void add_values(KeyBlock block) {
    const auto rows = queries->memory.p();
    const int end = edge ? smaller(block.cols, Config::block_n) : Config::block_n;
    _Pragma("clang loop unroll(disable)") for (int c = 0; c < end; c += 8 * p_panel) {
      Tile<P> Pt[row_tiles * p_panel];
      INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
        load_rows<p_panel, false, false>(Pt + i * p_panel, rows, queries->lane, 8 * i, c,
                                         Extent{0, 0});
      }
      ValueStep<Config, p_panel, value_tiles, edge, Columns::run_time, V> step{
          O,
          Pt,
          v.from(block.col + c, first_column()),
          queries->lane,
          0,
          Extent{block.cols - c, columns()}};
      for_panels<Config::block_dv, Config::panel, false>(step);
    }
  }

  /// S += Q K^T over `dim` columns of head_dim, from those of slab s on.
  template <int dim, bool edge>
  void add_scores(thread Tile<float>* S, KeyBlock own, int s) {
    using Panels = typename Q::Panels;
    Panels panels = queries->panels();
    ScoreStep<Config, own_key_tiles, edge, false, Panels, K> step{
        S, &panels, k.from(own.col, s * Q::slab_cols), 0, Extent{own.cols, dim}};
    for_panels<dim, Config::panel, true>(step);
  }

  /// The same over all of head_dim; the next slab of Q is on its way while one is multiplied.
  template <bool edge>
  void add_scores(thread Tile<float>* S, KeyBlock own) {
    _Pragma("clang loop unroll(disable)") for (int s = 0; s + 1 < Q::slabs; ++s) {
      queries->fetch(s + 1);
      add_scores<Q::slab_cols, edge>(S, own, s);
      queries->commit(queries->full ^ 1);
      queries->turn();
    }
    if constexpr (Q::slabs > 1) queries->fetch(0);
    add_scores<Config::head_dim - (Q::slabs - 1) * Q::slab_cols, edge>(S, own, Q::slabs - 1);
    if constexpr (Q::slabs > 1) {
      queries->commit(queries->full ^ 1);
      queries->turn();
    }
  }

  /// One block of keys.
  template <bool edge>
  void attend(KeyBlock block) {
    const int own_first = simdgroup * own_keys;
    const KeyBlock own{block.col + own_first, larger(block.cols - own_first, 0)};
    Tile<float> S[row_tiles * own_key_tiles];
    INGOT_UNROLL for (int i = 0; i < row_tiles * own_key_tiles; ++i) set_zero(S[i]);
    add_scores<edge>(S, own);
    pairs.template make_scores<row_tiles, own_key_tiles, edge>(S, own, queries->lane);

    const float factor_log2 = outer_factor<Config>(pairs.score) * log2_e;
    float highest[row_tiles], correction[row_tiles];
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      highest[i] = softmax.template highest<own_key_tiles>(S, i);
    }
    exchange<false>(highest);
    Tile<P> Pt[row_tiles * own_key_tiles];
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      correction[i] = softmax.template update<own_key_tiles>(S, Pt, i, highest[i], factor_log2,
                                                             pairs, own, queries->lane);
    }
    share(Pt);
    rescale<row_tiles, value_tiles>(O, correction);
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    add_values<edge>(block);
  }

  /// The blocks of keys from `begin` to `end` for the rows at positions [first, last].
  void run(Index begin, Index end, Index first, Index last, bool is_first_split = true) {
    softmax.start(pairs, queries->lane, is_first_split, simdgroup == 0);
    INGOT_UNROLL for (int i = 0; i < row_tiles * value_tiles; ++i) set_zero(O[i]);
    for (Index col = begin; col < end; col += Config::block_n) {
      const KeyBlock block{col, int(clamp_index(pairs.score.seqlen_k - col, 0, Config::block_n))};
      const Index last_col = col + Config::block_n - 1;
      if (block.cols < Config::block_n ||
          (Config::masked && !is_full(pairs.band, first, last, col, last_col))) {
        attend<true>(block);
      } else {
        attend<false>(block);
      }
    }
    finish();
  }

  void finish() {
    softmax.finish();
    multiply_kept<Config, row_tiles * value_tiles>(O, pairs.own);
    float sums[row_tiles];
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) sums[i] = softmax.row[i].row_sum;
    exchange<true>(sums);
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) softmax.row[i].row_sum = sums[i];
    clear_unseen<Config, row_tiles, value_tiles>(O, softmax);
  }

  template <class X>
  void store(X o, int rows) {
    OutputStep<row_tiles, value_tiles, Columns::run_time, X> step{
        O, &softmax, o.from(0, first_column()), queries->lane, Extent{rows, columns()}};
    for_panels<Config::block_dv, Config::panel, false>(step);
  }
};

}  // namespace ingot
