// What forward_mma.cuh and the decode kernels have in common: a block's place in the grid, its
// keys, where its tiles come from, how its warps merge and its results go.
#pragma once

#include "cuda/kernels/attend.cuh"

namespace ingot {

// Place of a block in the grid.
struct ForwardUnit {
  Index batch, head;  // head: of k and v where packed, else of q
  Index tile;
  int slice, split;
};

INGOT_FN ForwardUnit forward_unit(const MmaForwardParams& p, bool longest_first) {
  unsigned x = blockIdx.x;
  const auto take = [&x](unsigned n) {
    const unsigned r = x % n;
    x /= n;
    return r;
  };
  const unsigned tiles = static_cast<unsigned>(p.row_tiles);
  const unsigned tile = take(tiles);
  ForwardUnit unit;
  unit.tile = longest_first ? tiles - 1 - tile : tile;
  unit.slice = static_cast<int>(take(p.column_slices));
  unit.split = static_cast<int>(take(p.splits));
  unit.head = take(static_cast<unsigned>(p.heads));
  unit.batch = x;
  return unit;
}

// The queries of a warp, from row `first` of the unit's head, or heads, on.
template <class Config>
INGOT_FN FragmentQueries queries_of(const MmaForwardParams& p, const ForwardUnit& unit,
                                    Index first) {
  if constexpr (Config::packed) {
    return {unit.batch, unit.head * p.group, 0, first, static_cast<unsigned>(p.group)};
  }
  return {unit.batch, unit.head, 0, first, 1u};
}

// Blocks of keys one piece of the keys goes through.
struct BlockRange {
  Index begin;
  int count;
};

template <class Config>
INGOT_FN BlockRange block_range(const MmaForwardParams& p,
                                const typename BandOf<Config>::type& band, Index row, int rows,
                                int split) {
  const Index last = clamp_index(row + rows - 1, 0, p.score.seqlen_q - 1);
  const Index begin = col_begin(band, row) / Config::block_n;
  const Index end = (col_end(band, last) + Config::block_n - 1) / Config::block_n;
  const Index blocks = end > begin ? end - begin : 0;
  if constexpr (!Config::split) return {begin, static_cast<int>(blocks)};
  const unsigned each = static_cast<unsigned>(blocks) / p.splits;  // and one more for the first
  const unsigned more = static_cast<unsigned>(blocks) % p.splits;
  const unsigned piece = static_cast<unsigned>(split);
  const unsigned from = piece * each + (piece < more ? piece : more);
  return {begin + from, static_cast<int>(each + (piece < more ? 1 : 0))};
}

// o and lse of finished rows, whole or for one piece of the keys.
template <class Config, int M, class O>
INGOT_FN void store_forward(const MmaForwardParams& p, const ForwardUnit& unit, Index first,
                            const O& o, const ScaledSoftmax<float> (&softmax)[M / 8]) {
  const Index group = Config::packed ? p.group : 1;
  const Index head = unit.head * group, seqlen_q = p.score.seqlen_q;
  const int column = unit.slice * Config::columns;
  float factor[M / 8];
#pragma unroll
  for (int i = 0; i < M / 8; ++i) {
    const float sum = softmax[i].row_sum;
    factor[i] = sum == 0.0f ? 0.0f : 1.0f / sum;
  }
  MatrixView o_view = p.o;
  if constexpr (Config::split) {
    const Index heads = p.heads * group, row = p.splits, dim = Config::head_dim_v;
    o_view = {p.partial_o + unit.split * dim,
              {heads * seqlen_q * row * dim, seqlen_q * row * dim, row * dim, 1},
              dim % 4 == 0};
  }
  using Output = typename Select<Config::split, float, typename Config::output>::type;
  store_tile(matrix_of<Output, Config::packed>(o_view, unit.batch, head, seqlen_q,
                                               Config::head_dim_v, group),
             first, column, o, factor);
  if (unit.slice != 0 || lane() % 4 != 0) return;
  if constexpr (Config::split) {
    const Index heads = p.heads * group, row = p.splits;
    const MatrixView view{
        p.partial_sums + unit.split, {heads * seqlen_q * row, seqlen_q * row, row, 1}, 0};
    const auto out =
        matrix_of<PieceSums, Config::packed>(view, unit.batch, head, seqlen_q, 1, group);
#pragma unroll
    for (int i = 0; i < M / 8; ++i) {
      const Index at = first + O::row(i);
      if (at < out.rows) *out.row(at) = {softmax[i].row_max, softmax[i].row_sum};
    }
  } else {
    if (p.lse.data == nullptr) return;
    const float scale = outer_factor<Config>(p.score);
    const auto out = matrix_of<float, Config::packed>(p.lse, unit.batch, head, seqlen_q, 1, group);
#pragma unroll
    for (int i = 0; i < M / 8; ++i) {
      const Index at = first + O::row(i);
      if (at < out.rows) *out.row(at) = lse_of(softmax[i].row_max, softmax[i].row_sum, scale);
    }
  }
}

// Blocks of keys first, first + step, ... for the rows of `unit`.
template <class Config, class Team>
INGOT_FN KeyValueTiles<Config, Team> forward_tiles(const MmaForwardParams& p,
                                                   const ForwardUnit& unit, Index first, int step) {
  const Index group = Config::packed ? p.group : 1, head = unit.head * group;
  const Index head_kv = Config::packed ? unit.head : quotient(unit.head, p.group);
  return {matrix_of<const typename Config::q_type, Config::packed>(
              p.q, unit.batch, head, p.score.seqlen_q, Config::head_dim, group),
          matrix_of<const typename Config::k_type>(p.k, unit.batch, head_kv, p.score.seqlen_k,
                                                   Config::head_dim),
          matrix_of<const typename Config::v_type>(p.v, unit.batch, head_kv, p.score.seqlen_k,
                                                   Config::head_dim_v),
          unit.tile * Config::block_m,
          first,
          step,
          unit.slice * Config::columns};
}

// A warp's rows as they lie in shared memory between two warps: a number per lane.
template <class Rows, int M>
struct SharedRows {
  float o[sizeof(Rows::o) / sizeof(float)][32];
  float row_max[M / 8][32], row_sum[M / 8][32];
};

template <class Rows, int M>
INGOT_FN void leave(SharedRows<Rows, M>& shared, const Rows& rows) {
  constexpr int cols = Rows::O::cols;
#pragma unroll
  for (int i = 0; i < M / 8; ++i) {
    shared.row_max[i][lane()] = rows.softmax[i].row_max;
    shared.row_sum[i][lane()] = rows.softmax[i].row_sum;
#pragma unroll
    for (int j = 0; j < cols; ++j) shared.o[i * cols + j][lane()] = rows.o.x[i][j];
  }
}

// Softmax over the keys of both.
template <class Rows, int M>
INGOT_FN void merge(Rows& rows, const SharedRows<Rows, M>& shared, float factor_log2) {
  constexpr int cols = Rows::O::cols;
#pragma unroll
  for (int i = 0; i < M / 8; ++i) {
    const float correction = rows.softmax[i].raise_max(shared.row_max[i][lane()], factor_log2);
    const float weight =
        exp2_((shared.row_max[i][lane()] - rows.softmax[i].offset()) * factor_log2);
    rows.softmax[i].row_sum += shared.row_sum[i][lane()] * weight;
#pragma unroll
    for (int j = 0; j < cols; ++j) {
      rows.o.x[i][j] = rows.o.x[i][j] * correction + shared.o[i * cols + j][lane()] * weight;
    }
  }
}

// The warps of decode kernels have rows of their own keys each: afterwards the first has those of
// all. `memory` is free when every warp is here.
template <class Config, class Rows>
INGOT_FN void merge_warps(Rows& rows, unsigned char* memory, const ScoreParams& score) {
  const float factor_log2 = outer_factor<Config>(score) * log2_e;
  constexpr int threads = Config::warps * 32;
  auto* const shared = reinterpret_cast<SharedRows<Rows, Config::block_m>*>(memory);
  sync_first<threads>();
  if (warp() > 0) leave(shared[warp() - 1], rows);
  sync_first<threads>();
  if (warp() > 0) return;
  for (int other = 1; other < Config::warps; ++other) merge(rows, shared[other - 1], factor_log2);
}

}  // namespace ingot
