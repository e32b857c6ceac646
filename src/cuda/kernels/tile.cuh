// Tiles: in registers, spread over the 32 lanes of a warp; in shared memory, loaded from strided
// memory; and the ring of shared tiles that hides the loads.
#pragma once

#include "cuda/kernels/element.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/mma_params.h"

#include "algorithm/score.h"  // clamp_index

namespace ingot {

// a / b of numbers below 2^32: the division of 64-bit ones costs hundreds of clocks.
INGOT_FN Index quotient(Index a, Index b) {
  return static_cast<unsigned>(a) / static_cast<unsigned>(b);
}

INGOT_FN int lane() { return static_cast<int>(threadIdx.x % 32); }
INGOT_FN int warp() { return static_cast<int>(threadIdx.x / 32); }

// M x N numbers of a warp. Number [i][j] of a lane lies in row 8 i + lane / 4 and col
// 4 Run (j / Run) + Run (lane % 4) + j % Run: runs of Run numbers, quads of lanes share rows. With
// Run = 2 it is the accumulator of mma.m16n8, and two of them the operand A of m16n8k16.
template <int M, int N, int Run = 2>
struct Fragment {
  static constexpr int rows = M / 8, cols = N / 4, run = Run;
  float x[rows][cols];

  INGOT_FN float& at(int i, int j) { return x[i][j]; }

  INGOT_FN void clear() {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) x[i][j] = 0.0f;
    }
  }
  INGOT_FN static int row(int i) { return 8 * i + lane() / 4; }
  INGOT_FN static int col(int j) { return 4 * Run * (j / Run) + Run * (lane() % 4) + j % Run; }
};

// Over the four lanes that share the rows.
INGOT_FN float max_of_quad(float x) {
  x = max_(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
  return max_(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}
INGOT_FN float sum_of_quad(float x) {
  x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

// Over all lanes of a warp, in every lane.
INGOT_FN float max_of_warp(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x = max_(x, __shfl_xor_sync(0xFFFFFFFFu, x, d));
  return x;
}
INGOT_FN float sum_of_warp(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, d);
  return x;
}

// The rows of one head of a tensor, or of the query heads of one key/value head: row r is then
// query r / group of head r % group. What lies beyond rows and cols reads as zero.
template <class Element, bool Packed = false>
struct Matrix {
  Element* data;
  Index row_stride, col_stride, head_stride;
  Index rows;
  int cols;
  unsigned group;  // looked at where Packed
  bool vector;     // rows are copied 16 bytes at a time

  INGOT_FN Element* row(Index r) const {
    if constexpr (Packed) {
      const unsigned query = static_cast<unsigned>(r) / group;
      const unsigned head = static_cast<unsigned>(r) - query * group;
      return data + query * row_stride + head * head_stride;
    } else {
      return data + r * row_stride;
    }
  }
};

// `head` is the first of the group where Packed.
template <class Element, bool Packed = false>
INGOT_FN Matrix<Element, Packed> matrix_of(const MatrixView& view, Index batch, Index head,
                                           Index rows, int cols, Index group = 1) {
  Element* data = static_cast<Element*>(view.data);
  return {data + batch * view.stride[0] + head * view.stride[1],
          view.stride[2],
          view.stride[3],
          view.stride[1],
          Packed ? rows * group : rows,
          cols,
          static_cast<unsigned>(group),
          view.vector != 0};
}

// Rows and cols of a shared tile of T: padded so that eight rows start in different banks.
template <class T, int Rows, int Cols>
struct SharedTile {
  static constexpr int pitch = Cols + 16 / static_cast<int>(sizeof(T));
  static constexpr int elements = Rows * pitch;
};

// The asynchronous part of load_tile. Every thread keeps to its cols, so that all it does per copy
// is one addition and one comparison.
template <class Team, int Rows, int Cols, class T, bool Packed>
INGOT_FN void copy_tile(T* tile, const Matrix<const T, Packed>& from, Index row, int col) {
  constexpr int pitch = SharedTile<T, Rows, Cols>::pitch;
  constexpr int width = 16 / static_cast<int>(sizeof(T)), vectors = Cols / width;
  constexpr int at_once = Team::threads / vectors;  // rows
  const int first = Team::thread() / vectors, c = Team::thread() % vectors * width;
  if (Team::threads % vectors != 0 && first >= at_once) return;
  const int left = from.cols - col - c;
  const int bytes = left <= 0 ? 0 : (left < width ? left : width) * static_cast<int>(sizeof(T));
  const int rows = static_cast<int>(clamp_index(from.rows - row, 0, Rows));
  const T* source = Packed ? nullptr : from.row(row + first) + col + c;
  const Index step = at_once * from.row_stride;
  T* const to = tile + first * pitch + c;
#pragma unroll
  for (int i = 0; i < Rows; i += at_once) {
    const bool there = first + i < rows;
    if (Packed) source = there ? from.row(row + first + i) + col + c : from.data;
    if (Rows % at_once == 0 || first + i < Rows) {
      copy_async(to + i * pitch, source, there ? bytes : 0);
    }
    source += step;
  }
}

// A shared tile from rows [row, row + Rows) and cols [col, col + Cols) of a matrix, by a team.
// Complete after copy_wait and a barrier.
template <class Team, int Rows, int Cols, class T, class Element, bool Packed>
INGOT_FN void load_tile(T* tile, const Matrix<Element, Packed>& from, Index row, int col) {
  constexpr int pitch = SharedTile<T, Rows, Cols>::pitch;
  if constexpr (IsSame<const T, Element>::value) {
    if (from.vector) return copy_tile<Team, Rows, Cols>(tile, from, row, col);
  }
#pragma unroll 2
  for (int i = Team::thread(); i < Rows * Cols; i += Team::threads) {
    const int r = i / Cols, c = i % Cols;
    float x = 0.0f;
    if (row + r < from.rows && col + c < from.cols) {
      x = to_float(from.row(row + r)[(col + c) * from.col_stride]);
    }
    from_float(tile[r * pitch + c], x);
  }
}

// Rows of an accumulator, each times a factor, to rows [row, ...) and cols [col, ...) of a matrix.
template <class Element, bool Packed, int M, int N, int Run>
INGOT_FN void store_tile(const Matrix<Element, Packed>& to, Index row, int col,
                         const Fragment<M, N, Run>& tile, const float (&factor)[M / 8]) {
  using Tile = Fragment<M, N, Run>;
  struct alignas(Run * sizeof(Element)) Vector {
    Element x[Run];
  };
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    const Index r = row + Tile::row(i);
    if (r >= to.rows) continue;
    Element* out = to.row(r);
#pragma unroll
    for (int j = 0; j < Tile::cols; j += Run) {
      const int c = col + Tile::col(j);
      Vector v;
#pragma unroll
      for (int n = 0; n < Run; ++n) from_float(v.x[n], tile.x[i][j + n] * factor[i]);
      if (to.vector && c + Run <= to.cols) {
        *reinterpret_cast<Vector*>(out + c) = v;
      } else {
#pragma unroll
        for (int n = 0; n < Run; ++n) {
          if (c + n < to.cols) out[(c + n) * to.col_stride] = v.x[n];
        }
      }
    }
  }
}

// Among the first Threads threads of the block.
template <int Threads>
INGOT_FN void sync_first() {
  asm volatile("bar.sync 1, %0;" ::"n"(Threads) : "memory");
}

// Threads that share tiles: all of the block, or each warp by itself.
template <int Threads>
struct Team {
  static constexpr int threads = Threads;
  INGOT_FN static int thread() { return static_cast<int>(threadIdx.x) % Threads; }
  INGOT_FN static void sync() {
    if constexpr (Threads == 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
};

// A ring of `Stages` shared tiles. The work goes in blocks of `Items` items, each of which needs
// one tile; next(block, item) gives its tile, in order, and starts the copies of the item Stages -
// 1 later. The tile before it is no longer there. Source::load(block, item, slot) starts one copy.
template <class Team, class T, int Elements, int Stages, int Items, class Source>
struct TileRing {
  T* slots;
  Source source;
  int blocks, slot;

  INGOT_FN TileRing(T* memory, const Source& tiles, int count)
      : slots(memory), source(tiles), blocks(count), slot(0) {
#pragma unroll 1
    for (int i = 0; i < Stages - 1; ++i) start(0, i, i);
  }
  INGOT_FN void start(int block, int item, int to) {
    block += item / Items;
    if (block < blocks) source.load(block, item % Items, slots + to * Elements);
    copy_commit();
  }
  INGOT_FN const T* next(int block, int item) {
    copy_wait<Stages - 2>();
    Team::sync();
    const int before = slot == 0 ? Stages - 1 : slot - 1;
    start(block, item + Stages - 1, before);
    const T* tile = slots + slot * Elements;
    slot = slot + 1 == Stages ? 0 : slot + 1;
    return tile;
  }
};

}  // namespace ingot
