// What the backward kernels share: products of blocks. A threadgroup owns block_m rows of one
// sequence and walks along the other, block_n of it a step.
//
//   contract     S  = A B^T   A: own rows, in registers or read again; B: streamed
//   accumulate   R += W B     W: P or dS of this step; B: streamed; R: own rows, in registers
#pragma once
#include "metal/kernels/copy.h"
#include "metal/kernels/params.h"

#include "algorithm/score.h"

namespace ingot {

/// `splits` simdgroups own the same rows. Each makes its part of the columns of the scores and,
/// with the scores of all of them, its part of the columns of the results.
template <class Config>
struct Share {
  static constexpr constant int threads = 32 * Config::simdgroups;
  static constexpr constant int row_tiles = Config::rows_per_simdgroup / 8;
  static constexpr constant int splits =
      Config::simdgroups * Config::rows_per_simdgroup / Config::block_m;
  static constexpr constant int all_tiles = Config::block_n / 8;
  static constexpr constant int own_tiles = all_tiles / splits;
};

/// One thread: where it stands in its simdgroup, and what its simdgroup owns.
struct Worker {
  int thread_index;
  Lane lane;
  int row;    // the simdgroup's first in the block
  int split;  // which part of the columns
};

template <class Config>
inline Worker worker_of(int thread_index, int simdgroup, ushort lane) {
  constexpr int splits = Share<Config>::splits;
  return Worker{thread_index, lane_of(lane), simdgroup / splits * Config::rows_per_simdgroup,
                simdgroup % splits};
}

// ---- right-hand operands ----

/// Two slots of threadgroup memory in turn: while one is multiplied the other is filled, so a
/// single barrier a slab is enough.
struct Slots {
  threadgroup float4* memory;
  int stride;   // of slots, in float4
  int current;  // 0 or 1

  threadgroup float4* next() {
    current = 1 - current;
    return memory + current * stride;
  }
};

/// A right-hand operand, streamed in slabs of slab_rows x slab_cols, or read where it lies.
template <class Config, class Source, int slab_rows, int slab_cols>
struct Stream {
  using X = Source;
  using Part = Slab<typename X::Element, slab_rows, slab_cols, Share<Config>::threads>;
  static constexpr constant int rows = slab_rows;
  static constexpr constant int bytes = Config::stage_rhs ? Part::bytes : 0;

  X x;
  Extent extent;
  int thread_index;
  Part part;

  /// Starts to load the slab at (row, col).
  void fetch(int row, int col) {
    if constexpr (Config::stage_rhs) part.fetch(x, thread_index, row, col, extent);
  }
  /// The slab that was fetched, where all threads see it.
  typename Part::Staged stage(thread Slots& slots) {
    threadgroup float4* slot = slots.next();
    part.commit(slot, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return Part::staged(slot);
  }
};

/// Rows of the slabs that make results: block_dv wide, they hold no more than those of
/// block_n x block_d that make scores.
template <class Config>
constexpr int wide_rows() {
  int rows = Config::block_n;
  while (Config::stage_rhs && rows * Config::block_dv > Config::block_n * Config::block_d) {
    rows /= 2;
  }
  return rows;
}

/// The slab that a phase starts to load while its last one is multiplied: the next phase's first.
template <class B>
struct Following {
  thread B* stream;
  int row;
  void fetch() { stream->fetch(row, 0); }
};

// ---- left-hand operands ----

/// Own rows of a tensor: in registers for the whole kernel (cached), or read at every use.
template <class Config, class X, class Register, int dim, bool in_registers>
struct OwnRows {
  using R = Register;
  static constexpr constant int row_tiles = Share<Config>::row_tiles;
  static constexpr constant int tiles = tiles_of(dim);
  static constexpr constant bool cached = in_registers;

  X x;
  Extent extent;
  int row;
  Lane lane;
  Tile<R> held[cached ? row_tiles * tiles : 1];

  template <int width, bool col_edge>
  void read(thread Tile<R>* to, int stride, int tile) {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      load_rows<width, true, col_edge>(to + i * stride, x, lane, row + 8 * i, 8 * tile, extent);
    }
  }
  template <int width, bool col_edge>
  void run(int tile) {
    read<width, col_edge>(held + tile, tiles, tile);
  }
  void start() {
    if constexpr (cached) for_panels<dim, Config::panel, false>(*this);
  }

  /// Tiles [row_tiles][width] from column tile `tile` on.
  template <int width, bool col_edge>
  void get(thread Tile<R>* to, int tile) {
    if constexpr (cached) {
      INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
        INGOT_UNROLL for (int j = 0; j < width; ++j) to[i * width + j] = held[i * tiles + tile + j];
      }
    } else {
      read<width, col_edge>(to, width, tile);
    }
  }
};

/// P or dS of one step: the simdgroup's own tiles and, where columns are split, everybody's in
/// threadgroup memory.
template <class Config, class Register>
struct Weights {
  using R = Register;
  static constexpr constant int row_tiles = Share<Config>::row_tiles;
  static constexpr constant int own_tiles = Share<Config>::own_tiles;
  static constexpr constant bool shared = Share<Config>::splits > 1;
  static constexpr constant int lead = Config::block_n + 8;  // neighbours in other banks
  static constexpr constant int bytes = shared ? Config::block_m * lead * int(sizeof(R)) : 0;
  using Memory = Rows<R, threadgroup R*, int, 2>;

  threadgroup float4* memory;
  Tile<R> own[row_tiles * own_tiles];

  Memory rows() const { return Memory{reinterpret_cast<threadgroup R*>(memory), lead, 1, 0, 0}; }

  void set(int i, int c, int e, float x) { own[i * own_tiles + c].thread_elements()[e] = R(x); }

  /// Makes the own tiles visible, with the next barrier. Nobody reads the step before any more.
  void publish(Worker w) {
    if constexpr (shared) {
      if constexpr (!Config::stage_rhs) threadgroup_barrier(mem_flags::mem_threadgroup);
      INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
        INGOT_UNROLL for (int c = 0; c < own_tiles; ++c) {
          const thread Tile<R>& tile = own[i * own_tiles + c];
          const Pack<R, 2> pack{{tile.thread_elements()[0], tile.thread_elements()[1]}};
          const int col = 8 * (w.split * own_tiles + c) + w.lane.col;
          rows().template put<2>(w.row + 8 * i + w.lane.row, col, pack);
        }
      }
      if constexpr (!Config::stage_rhs) threadgroup_barrier(mem_flags::mem_threadgroup);
    }
  }

  /// All own rows of columns [8 c, 8 c + 8).
  void get(thread Tile<R>* to, int c, Worker w) {
    INGOT_UNROLL for (int i = 0; i < row_tiles; ++i) {
      if constexpr (shared) {
        const Pack<R, 2> pack =
            rows().template get<2>(w.row + 8 * i + w.lane.row, 8 * c + w.lane.col);
        to[i].thread_elements()[0] = pack.of[0];
        to[i].thread_elements()[1] = pack.of[1];
      } else {
        to[i] = own[i * own_tiles + c];
      }
    }
  }
};

}  // namespace ingot
