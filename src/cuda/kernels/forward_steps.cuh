// What the Hopper forward kernels are made of: the warpgroup that loads tiles through the tensor
// memory accelerator, and the steps of those that compute.
#pragma once

#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/forward_shape.cuh"
#include "cuda/kernels/forward_store.cuh"
#include "cuda/kernels/pairs.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/terms.cuh"
#include "cuda/kernels/tma.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

template <class Config>
struct ForwardSteps {
  using Shape = ForwardShape<Config>;
  using T = typename Config::element;
  static constexpr int block_n = Shape::block_n, planes = Shape::planes;
  using KeyPlace = Place<Shape::stages>;

  const ForwardParams& params;
  const u32 shared;     // address of the map in ForwardShape
  const int warpgroup;  // the last one loads

  // ---- loading -------------------------------------------------------------------------------

  // All planes and panels of a tile of `rows` rows.
  template <int Planes, int Panels>
  INGOT_FN void load_tile(const TensorMap& map, BoxAt at, int rows, u32 to, u32 barrier) const {
#pragma unroll 1
    for (int plane = 0; plane < Planes; ++plane) {
#pragma unroll 1
      for (int panel = 0; panel < Panels; ++panel) {
        at.x[0] = panel * 64;
        if (Planes > 1) at.x[4] = plane;
        tma_load(to + (plane * Panels + panel) * rows * 128, map, at, barrier);
      }
    }
  }

  // Keys of a block. In a cluster every block loads its share of the rows to all.
  template <int Panels>
  INGOT_FN void load_keys(const TensorMap& map, const Tile& tile, int block, u32 to,
                          u32 barrier) const {
    constexpr int share = block_n / Shape::cluster;
    const int first = Shape::cluster > 1 ? cluster_rank() * share : 0;
    BoxAt at{{0, block * block_n + first, tile.head_kv, tile.batch, 0}};
    mbarrier_arrive_expect(barrier, planes * Panels * block_n * 128);
    if constexpr (Shape::cluster == 1) {
      load_tile<planes, Panels>(map, at, block_n, to, barrier);
    } else {
      for (int panel = 0; panel < Panels; ++panel) {
        at.x[0] = panel * 64;
        tma_load_multicast(to + panel * block_n * 128 + first * 128, map, at, barrier,
                           (1 << Shape::cluster) - 1);
      }
    }
  }

  INGOT_FN void load_queries(const TensorMap& map, const Tile& tile, u32 phase) const {
    const int rows = query_rows<Config>(params, 64);
    for (int w = 0; w < Shape::row_groups; ++w) {
      const int row = tile.row + w * rows;
      BoxAt at{{0, row, tile.head, tile.batch, 0}};
      if (Config::packed) at = BoxAt{{0, 0, row, tile.head_kv, tile.batch}};
      mbarrier_wait(shared + Shape::q_empty + 8 * w, phase);
      mbarrier_arrive_expect(shared + Shape::q_full + 8 * w, Shape::q_tile);
      load_tile<planes, Shape::panels>(map, at, 64, shared + Shape::q_at + w * Shape::q_tile,
                                       shared + Shape::q_full + 8 * w);
    }
  }

  // One thread feeds the block.
  INGOT_FN void load(const TensorMap& q, const TensorMap& k, const TensorMap& v) const {
    int step = 0;  // key blocks so far
    u32 q_phase = 1;
    for (Turn<Config> turn; turn.unit() < params.units; ++turn.round) {
      const Tile tile = tile_of<Config>(params, turn.unit());
      for (int block = tile.end - 1; block >= tile.begin; --block, ++step) {
        const u32 empty_phase = KeyPlace(step).phase ^ 1;
        mbarrier_wait(k_empty(step), empty_phase);
        if (is_marked()) return;
        load_keys<Shape::panels>(k, tile, block, k_tile(step), k_full(step));
        if (block == tile.end - 1) {
          load_queries(q, tile, q_phase);
          q_phase ^= 1;
        }
        mbarrier_wait(v_empty(step), empty_phase);
        load_keys<Shape::panels_v>(v, tile, block, v_tile(step), v_full(step));
      }
    }
  }

  // ---- computing -----------------------------------------------------------------------------

  // One arrival for the warpgroup: a slot of this block is free again.
  INGOT_FN void done(u32 barrier) const {
    if (threadIdx.x % 128 == 0) mbarrier_arrive(barrier);
  }
  // The same for a slot of keys, which every block of the cluster fills.
  INGOT_FN void release(u32 barrier) const {
    if (threadIdx.x % 128 != 0) return;
    if constexpr (Shape::cluster == 1) {
      mbarrier_arrive(barrier);
    } else {
      for (int rank = 0; rank < Shape::cluster; ++rank)
        mbarrier_arrive_remote(mbarrier_of_block(barrier, rank));
    }
  }

  static constexpr int terms = terms_of(planes);

  // S = Q K^T; the small terms first.
  INGOT_FN void multiply_qk(float* s, u64 q, u64 k) const {
#pragma unroll
    for (int term = terms - 1; term >= 0; --term) {
#pragma unroll
      for (int i = 0; i < Shape::dim / 16; ++i) {
        const int q_bytes = first_plane(term) * Shape::q_plane + i / 4 * 64 * 128 + i % 4 * 32;
        const int k_bytes =
            second_plane(term) * Shape::k_plane + i / 4 * block_n * 128 + i % 4 * 32;
        Wgmma<T, block_n>::template ss<0, 0>(s, q + q_bytes / 16, k + k_bytes / 16,
                                             i > 0 || term < terms - 1);
      }
    }
  }

  // O (+)= P V, `Count` columns in products of at most 256. V is at column First.
  template <int First, int Count>
  INGOT_FN void multiply_pv(float* o, const u32 (&p)[planes][block_n / 4], u64 v) const {
    constexpr int columns = Count < 256 ? Count : 256;
#pragma unroll
    for (int term = terms - 1; term >= 0; --term) {
#pragma unroll
      for (int i = 0; i < block_n / 16; ++i) {
        const int bytes =
            second_plane(term) * Shape::v_plane + First / 64 * block_n * 128 + i * 16 * 128;
        Wgmma<T, columns>::template rs<1>(o, p[first_plane(term)] + 4 * i, v + bytes / 16,
                                          planes == 1 || i > 0 || term < terms - 1);
      }
    }
    if constexpr (Count > columns) {
      multiply_pv<First + columns, Count - columns>(o + columns / 2, p, v);
    }
  }

  // Row of q of the tile's row `place`.
  INGOT_FN int row_at(const Tile& tile, int place) const {
    return tile.row + query_rows<Config>(params, place);
  }

  // Does every row of this warpgroup see every key of the block?
  INGOT_FN bool is_full_block(const typename BandOf<Config>::type& band, int block,
                              int row_first) const {
    const ScoreParams& score = params.score;
    const int col_first = block * block_n, col_end = col_first + block_n;
    bool full = col_end <= static_cast<int>(score.seqlen_k);
    if constexpr (Config::masked && Config::prefix) {
      const int row_last = row_first + query_rows<Config>(params, 64) - 1;
      full = full && is_full(band, row_first, row_last, col_first, col_end - 1);
    } else if (Config::masked) {
      const int row_last = row_first + query_rows<Config>(params, 64) - 1;
      full = full && col_first >= row_last + static_cast<int>(score.band_left) &&
             col_end <= row_first + static_cast<int>(score.band_right) + 1;
    }
    return full;
  }

  // What the rows of this thread see of the key block, from its own first column on.
  INGOT_FN Visible visible_in(const typename BandOf<Config>::type& band, int block,
                              const Tile& tile) const {
    const int first = block * block_n + 2 * (threadIdx.x % 4);
    const ScoreParams& score = params.score;
    Visible visible;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_at(tile, place_in_tile() + 8 * h);
      int end = static_cast<int>(score.seqlen_k);
      if constexpr (Config::masked && Config::prefix) {
        end = static_cast<int>(col_end(band, row));
      } else if (Config::masked) {
        end = min(end, row + static_cast<int>(score.band_right) + 1);
      }
      visible.end[h] = end - first;
      visible.begin[h] = row + static_cast<int>(score.band_left) - first;
    }
    return visible;
  }

  // Issues S = Q K^T of a key block that is there.
  INGOT_FN void issue_qk(float (&s)[block_n / 2], int step) const {
    const u64 q = wgmma_tile(shared + Shape::q_at + row_group() * Shape::q_tile, 0);
    const u64 k = wgmma_tile(k_tile(step), 0);
    wgmma_fence();
    multiply_qk(s, q, k);
    wgmma_commit();
  }
  // Issues O += P V when V is there; with split operands O = P V.
  INGOT_FN void issue_pv(float (&o)[Shape::columns / 2], const u32 (&p)[planes][block_n / 4],
                         int step) const {
    mbarrier_wait(v_full(step), KeyPlace(step).phase);
    const u64 v = wgmma_tile(v_tile(step), block_n * 128);
    wgmma_fence();
    multiply_pv<0, Shape::columns>(o, p, v);
    wgmma_commit();
  }

  // Scores of a key block, in registers, to weights; true where O is to be multiplied.
  INGOT_FN bool weigh(float (&s)[block_n / 2], const Tile& tile, int block, const Scale& scale,
                      Rows& rows, float (&correction)[2]) const {
    transform<Config>(s, scale, params.score);
    const Parts<Config> parts = parts_of<Config>(params.parts);
    const AccumulatorFragment<block_n / 2> fragment{s};
    add_parts<Config>(fragment, parts, queries_of(tile), params.score,
                      static_cast<Index>(block) * block_n, block_n);
    const auto band = parts.band(params.score, tile.batch);
    if (!is_full_block(band, block, row_at(tile, row_group() * 64))) {
      hide<Config::masked>(s, visible_in(band, block, tile));
    }
    const bool raised = raise_max(s, scale.log2, rows, correction);
    exponentiate(s, rows);
    const Index heads = params.num_heads * (Config::packed ? params.group : 1);
    kept_of_queries<Config, AccumulatorFragment<block_n / 2>>(parts, queries_of(tile), heads,
                                                              static_cast<Index>(block) * block_n)
        .apply(fragment);
    return raised;
  }

  // The queries of this thread.
  INGOT_FN FragmentQueries queries_of(const Tile& tile) const {
    const int place = place_in_tile();
    if constexpr (Config::packed) {
      return {tile.batch, tile.head * params.group, tile.row, place,
              static_cast<unsigned>(params.group)};
    }
    return {tile.batch, tile.head, tile.row, place, 1u};
  }

  // What the softmax of this thread's rows begins with.
  INGOT_FN Rows first_rows(const Tile& tile, const Scale& scale) const {
    Rows rows(scale.log2);
    if constexpr (Config::sinks) {
      const Parts<Config> parts = parts_of<Config>(params.parts);
      const FragmentQueries queries = queries_of(tile);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const auto first = first_softmax<Config>(parts, queries.head_of(8 * h), true);
        rows.max[h] = first.row_max, rows.sum[h] = first.row_sum;
      }
    }
    return rows;
  }

  // ---- places -------------------------------------------------------------------------------

  // First row of this thread in the tile; the other is 8 below.
  INGOT_FN int place_in_tile() const {
    const int thread = anew(threadIdx.x);
    return row_group() * 64 + thread % 128 / 32 * 16 + thread % 32 / 4;
  }
  INGOT_FN int row_group() const { return Shape::row_groups == 1 ? 0 : warpgroup; }
  INGOT_FN u32 k_tile(int step) const {
    return shared + Shape::k_at + KeyPlace(step).slot * Shape::k_tile;
  }
  INGOT_FN u32 v_tile(int step) const {
    return shared + Shape::v_at + KeyPlace(step).slot * Shape::v_tile;
  }
  INGOT_FN u32 q_full() const { return shared + Shape::q_full + 8 * row_group(); }
  INGOT_FN u32 q_empty() const { return shared + Shape::q_empty + 8 * row_group(); }
  INGOT_FN u32 k_full(int step) const { return shared + Shape::k_full + 8 * KeyPlace(step).slot; }
  INGOT_FN u32 k_empty(int step) const { return shared + Shape::k_empty + 8 * KeyPlace(step).slot; }
  INGOT_FN u32 v_full(int step) const { return shared + Shape::v_full + 8 * KeyPlace(step).slot; }
  INGOT_FN u32 v_empty(int step) const { return shared + Shape::v_empty + 8 * KeyPlace(step).slot; }
};

}  // namespace ingot
