// The two products of the backward kernels over blocks, see backward_tile.h.
#pragma once
#include "metal/kernels/backward_tile.h"

namespace ingot {

// ---- S = A B^T ----

/// Adds the columns of head_dim that a panel holds; a step of for_panels.
template <class Config, bool edge, class A, class B>
struct ContractStep {
  using R = typename A::R;
  static constexpr constant bool direct = !Config::stage_rhs;

  thread Tile<float>* S;  // [row_tiles][own_tiles]
  thread A* a;
  B b;
  Worker worker;
  int row;         // of b: the first of the own columns of S
  int first_tile;  // of A, where b begins
  Extent extent;

  template <int width, bool col_edge>
  void run(int t) {
    constexpr int row_tiles = Share<Config>::row_tiles, own_tiles = Share<Config>::own_tiles;
    Tile<R> At[row_tiles * width];
    a->template get<width, col_edge>(At, first_tile + t);
    INGOT_UNROLL for (int c = 0; c < own_tiles; ++c) {
      Tile<R> Bt[width];
      load_transposed<width, edge && direct, col_edge && direct>(Bt, b, worker.lane, row + 8 * c,
                                                                 8 * t, extent);
      INGOT_UNROLL for (int j = 0; j < width; ++j) {
        INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
          multiply_add(S[i * own_tiles + c], At[i * width + j], Bt[j]);
        }
      }
    }
  }
};

/// One slab of `width` columns, the `index`-th of `dim`.
template <class Config, int dim, int width, bool edge, class A, class B, class Next>
inline void contract_slab(thread Tile<float>* S, thread A& a, thread B& b, int row, int index,
                          thread Next& next, thread Slots& slots, Worker w) {
  using Staged = typename B::Part::Staged;
  const Staged staged = b.stage(slots);
  if ((index + 1) * Config::block_d < dim) {
    b.fetch(row, (index + 1) * Config::block_d);
  } else {
    next.fetch();
  }
  ContractStep<Config, edge, A, Staged> step{S,
                                             &a,
                                             staged,
                                             w,
                                             8 * w.split * Share<Config>::own_tiles,
                                             index * (Config::block_d / 8),
                                             Extent{Config::block_n, width}};
  for_panels<width, Config::panel, !A::cached>(step);
}

/// S = A B^T over `dim` columns, rows [row, row + block_n) of B.
template <class Config, int dim, bool edge, class A, class B, class Next>
inline void contract(thread Tile<float>* S, thread A& a, thread B& b, int row, Next next,
                     thread Slots& slots, Worker w) {
  constexpr int own_tiles = Share<Config>::own_tiles;
  INGOT_UNROLL for (int i = 0; i < Share<Config>::row_tiles * own_tiles; ++i) set_zero(S[i]);
  if constexpr (Config::stage_rhs) {
    constexpr int width = Config::block_d, count = dim / width;
    if constexpr (A::cached) {
      INGOT_UNROLL for (int i = 0; i < count; ++i) {
        contract_slab<Config, dim, width, edge>(S, a, b, row, i, next, slots, w);
      }
    } else {
      for (int i = 0; i < count; ++i) {
        contract_slab<Config, dim, width, edge>(S, a, b, row, i, next, slots, w);
      }
    }
    if constexpr (dim % width != 0) {
      contract_slab<Config, dim, dim % width, edge>(S, a, b, row, count, next, slots, w);
    }
  } else {
    ContractStep<Config, edge, A, typename B::X> step{
        S, &a, b.x, w, row + 8 * w.split * own_tiles, 0, b.extent};
    for_panels<dim, Config::panel, !A::cached>(step);
  }
}

// ---- R += W B ----

/// Own rows of a result of `dim` columns. Slabs of `width` columns; of each slab the simdgroup owns
/// `part`.
template <class Config, int dim>
struct Result {
  static constexpr constant int row_tiles = Share<Config>::row_tiles;
  static constexpr constant int splits = Share<Config>::splits;
  static constexpr constant int padded = (dim + 8 * splits - 1) / (8 * splits) * 8 * splits;
  static constexpr constant int width =
      Config::stage_rhs ? smaller(Config::block_dv, padded) : padded;
  static constexpr constant int slabs = (dim + width - 1) / width;
  static constexpr constant int part = width / splits;
  static constexpr constant int tiles = slabs * part / 8;
  /// Columns of the last slab that for_panels goes through.
  static constexpr constant int last = splits > 1 ? part : dim - (slabs - 1) * width;
  static_assert(width % (8 * splits) == 0, "each simdgroup owns whole tiles of a slab");

  Tile<float> tile[row_tiles * tiles];

  void clear() { INGOT_UNROLL for (int i = 0; i < row_tiles * tiles; ++i) set_zero(tile[i]); }
  /// First own column of a slab.
  static int column(int slab, Worker w) { return slab * width + w.split * part; }
};

/// Adds eight rows of B; a step of for_panels.
template <class Config, int tiles, bool edge, class Left, class Right, class B>
struct AccumulateStep {
  static constexpr constant int row_tiles = Share<Config>::row_tiles;
  static constexpr constant bool direct = !Config::stage_rhs;
  static constexpr constant bool ragged = direct && Share<Config>::splits > 1;

  thread Tile<float>* result;  // [row_tiles][tiles], from the slab's first on
  B b;
  Lane lane;
  int row, col;  // of b
  Extent extent;
  Tile<Left> W[row_tiles];

  template <int width, bool col_edge>
  void run(int t) {
    Tile<Right> Bt[width];
    const int base = col + 8 * t;
    if (ragged && base + 8 * width > extent.cols) {
      load_rows<width, edge && direct, true>(Bt, b, lane, row, base, extent);
    } else {
      load_rows<width, edge && direct, col_edge && direct>(Bt, b, lane, row, base, extent);
    }
    INGOT_UNROLL for (int j = 0; j < width; ++j) {
      INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
        multiply_add(result[i * tiles + t + j], W[i], Bt[j]);
      }
    }
  }
};

/// `count` tiles of 8 rows of b into `columns` columns of a slab.
template <class Config, class Right, int columns, int tiles, int count, bool edge, class W, class B>
inline void accumulate_rows(thread Tile<float>* result, thread W& weights, int first_weight, B b,
                            int row, int col, Extent extent, Worker w) {
  AccumulateStep<Config, tiles, edge, typename W::R, Right, B> step{result, b,      w.lane, row,
                                                                    col,    extent, {}};
  if constexpr (W::shared) {
    for (int c = 0; c < count; ++c) {
      step.row = row + 8 * c;
      weights.get(step.W, first_weight + c, w);
      for_panels<columns, Config::panel, false>(step);
    }
  } else {
    INGOT_UNROLL for (int c = 0; c < count; ++c) {
      step.row = row + 8 * c;
      weights.get(step.W, first_weight + c, w);
      for_panels<columns, Config::panel, false>(step);
    }
  }
}

/// One slab of the result, `columns` of the own part.
template <class Config, int dim, class Right, int columns, bool edge, class W, class B, class Next>
inline void accumulate_slab(thread Result<Config, dim>& result, thread W& weights, thread B& b,
                            int row, int slab, thread Next& next, thread Slots& slots, Worker w) {
  using Out = Result<Config, dim>;
  constexpr int pieces = Config::block_n / B::rows, count = B::rows / 8;
  INGOT_UNROLL for (int r = 0; r < pieces; ++r) {
    const typename B::Part::Staged staged = b.stage(slots);
    if (r + 1 < pieces) {
      b.fetch(row + (r + 1) * B::rows, slab * Out::width);
    } else if (slab + 1 < Out::slabs) {
      b.fetch(row, (slab + 1) * Out::width);
    } else {
      next.fetch();
    }
    accumulate_rows<Config, Right, columns, Out::tiles, count, edge>(
        result.tile + slab * (Out::part / 8), weights, r * count, staged, 0, w.split * Out::part,
        Extent{B::rows, Out::width}, w);
  }
}

/// result += W B, rows [row, row + block_n) of B. Right: what B becomes in registers.
template <class Config, int dim, class Right, bool edge, class W, class B, class Next>
inline void accumulate(thread Result<Config, dim>& result, thread W& weights, thread B& b, int row,
                       Next next, thread Slots& slots, Worker w) {
  using Out = Result<Config, dim>;
  if constexpr (Config::stage_rhs) {
    INGOT_UNROLL for (int s = 0; s + 1 < Out::slabs; ++s) {
      accumulate_slab<Config, dim, Right, Out::part, edge>(result, weights, b, row, s, next, slots,
                                                           w);
    }
    accumulate_slab<Config, dim, Right, Out::last, edge>(result, weights, b, row, Out::slabs - 1,
                                                         next, slots, w);
  } else {
    accumulate_rows<Config, Right, Out::last, Out::tiles, Config::block_n / 8, edge>(
        result.tile, weights, 0, b.x, row, w.split * Out::part, b.extent, w);
  }
}

/// Stores one slab of a result; a step of for_panels.
template <class Config, int dim, class X>
struct StoreStep {
  const thread Result<Config, dim>* result;
  X x;
  Worker worker;
  int row, slab;
  float factor;
  Extent extent;

  template <int width, bool col_edge>
  void run(int t) {
    using Out = Result<Config, dim>;
    const int base = Out::column(slab, worker) + 8 * t;
    INGOT_UNROLL for (int i = 0; i < Out::row_tiles; ++i) {
      const thread Tile<float>* tiles = result->tile + i * Out::tiles + slab * (Out::part / 8) + t;
      const int r = row + 8 * i;
      if (col_edge || base + 8 * width > dim) {
        store_rows<width, true>(tiles, x, worker.lane, r, base, factor, extent);
      } else {
        store_rows<width, false>(tiles, x, worker.lane, r, base, factor, extent);
      }
    }
  }
};

/// x = factor * result, rows from `row` on.
template <class Config, int dim, class X>
inline void store(const thread Result<Config, dim>& result, X x, int row, float factor,
                  Extent extent, Worker w) {
  using Out = Result<Config, dim>;
  INGOT_UNROLL for (int s = 0; s + 1 < Out::slabs; ++s) {
    StoreStep<Config, dim, X> step{&result, x, w, row, s, factor, extent};
    for_panels<Out::part, Config::panel, false>(step);
  }
  StoreStep<Config, dim, X> step{&result, x, w, row, Out::slabs - 1, factor, extent};
  for_panels<Out::last, Config::panel, false>(step);
}

}  // namespace ingot
