// A stored matrix times a tensor of the caller, on Hopper: dq = dS K, dk = dS^T Q, dv = P^T dO. One
// warpgroup loads through the tensor memory accelerator, the others multiply and store. The
// matrices lie with their queries contiguous (stored.h): as keys by queries they are A by rows, as
// queries by keys A by columns, which products of 16-bit numbers may take; B is taken by columns.
#pragma once

#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/product_store.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/terms.cuh"
#include "cuda/kernels/tma.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

template <class Config>
struct ProductSteps {
  using Shape = ProductShape<Config>;
  using T = typename Config::element;

  const ProductParams& params;
  const u32 shared;  // address of the map in ProductShape

  INGOT_FN u32 full(int slot) const { return shared + Shape::full + 8 * slot; }
  INGOT_FN u32 empty(int slot) const { return shared + Shape::empty + 8 * slot; }

  // ---- loading -------------------------------------------------------------------------------

  // A of one block of the contraction. A box without a visible pair, which nobody wrote, comes from
  // outside the matrix: zeros.
  INGOT_FN void load_a(const TensorMap& a, const ProductTile& tile, int block, int matrix, u32 to,
                       u32 barrier) const {
    const StoredMatrices& stored = params.stored;
    const int along = block * 64;
#pragma unroll 1
    for (int i = 0; i < Shape::row_blocks; ++i) {
      const int row = tile.row + i * 64;
      const int query = Config::by_keys ? along : row;
      const int key = Config::by_keys ? row : along + stored.key_first;
      const bool is_there = is_stored(params.score, query, key);
      BoxAt at{{is_there ? query : stored.rows_padded, key - stored.key_first, 0, matrix, 0}};
#pragma unroll 1
      for (; at.x[2] < Shape::planes; ++at.x[2]) {
        tma_load(to + at.x[2] * Shape::a_plane + i * Shape::box, a, at, barrier);
      }
    }
  }

  INGOT_FN void load_b(const TensorMap& b, const ProductTile& tile, int block, int head, u32 to,
                       u32 barrier) const {
    const int along = block * 64 + (Config::by_keys ? 0 : params.stored.key_first);
#pragma unroll 1
    for (int i = 0; i < Shape::panels; ++i) {
      BoxAt at{{tile.column + i * 64, along, head, tile.batch, 0}};
#pragma unroll 1
      for (; at.x[4] < Shape::planes; ++at.x[4]) {
        tma_load(to + at.x[4] * Shape::b_plane + i * Shape::box, b, at, barrier);
      }
    }
  }

  // One thread feeds the block, a unit of work at a time.
  INGOT_FN void load(const TensorMap& a, const TensorMap& b, const ProductTile& tile,
                     Ring<Shape::stages>& ring) const {
    const int heads = Config::by_keys ? params.group : 1;
    for (int head = 0; head < heads; ++head) {
      for (int block = tile.begin; block < tile.end; ++block, ring.next()) {
        const u32 stage = shared + ring.slot * Shape::stage, barrier = full(ring.slot);
        mbarrier_wait(empty(ring.slot), ring.phase ^ 1);
        mbarrier_arrive_expect(barrier, Shape::stage);
        load_a(a, tile, block, tile.matrix + head, stage, barrier);
        load_b(b, tile, block, tile.head_b + head, stage + Shape::b_in_stage, barrier);
      }
    }
  }

  // ---- computing -----------------------------------------------------------------------------

  INGOT_FN void release(int slot) const {
    if (threadIdx.x % 128 == 0) mbarrier_arrive(empty(slot));
  }

  // 64 rows by 16 of the contraction by `Count` columns, in products of at most `most` columns: an
  // instruction may not take more registers than a thread starts with.
  template <int Count>
  INGOT_FN void multiply_columns(float* sum, u64 a, u64 b, int accumulate) const {
    constexpr int most = Shape::warpgroups == 3 ? 128 : 256;
    constexpr int columns = Count < most ? Count : most;
    Wgmma<T, columns>::template ss<!Config::by_keys, 1>(sum, a, b, accumulate);
    if constexpr (Count > columns) {
      multiply_columns<Count - columns>(sum + columns / 2, a, b + columns / 64 * Shape::box / 16,
                                        accumulate);
    }
  }

  // Issues 64 rows by 64 of the contraction; from 0 where operands are split.
  INGOT_FN void multiply(float* sum, u32 a, u32 b) const {
    const u64 a_tile = wgmma_tile(a, Shape::box), b_tile = wgmma_tile(b, Shape::box);
    constexpr int terms = terms_of(Shape::planes);
#pragma unroll
    for (int term = terms - 1; term >= 0; --term) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int a_bytes = first_plane(term) * Shape::a_plane + i * (Config::by_keys ? 32 : 2048);
        const int b_bytes = second_plane(term) * Shape::b_plane + i * 2048;
        multiply_columns<Shape::columns>(sum, a_tile + a_bytes / 16, b_tile + b_bytes / 16,
                                         Shape::planes == 1 || i > 0 || term < terms - 1);
      }
    }
  }

  using Sums = float[Shape::of_warpgroup][Shape::columns / 2];

  // The products of a stage run while the next is waited for.
  INGOT_FN void take_tile(Sums& sums, Ring<Shape::stages>& ring, int steps, int warpgroup) const {
    const u32 a_place = warpgroup * Shape::of_warpgroup * Shape::box;
    int before = 0;
#pragma unroll 1
    for (int step = 0; step < steps; ++step, ring.next()) {
      const u32 stage = shared + ring.slot * Shape::stage;
      mbarrier_wait(full(ring.slot), ring.phase);
      wgmma_fence();
#pragma unroll
      for (int r = 0; r < Shape::of_warpgroup; ++r) {
        multiply(sums[r], stage + a_place + r * Shape::box, stage + Shape::b_in_stage);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0) release(before);
      before = ring.slot;
    }
    wgmma_wait<0>();
    if (steps > 0) release(before);
  }

  // Tensor cores truncate, so sums of operands that are split for their accuracy take what a stage
  // gave with rounding.
  INGOT_FN void take_split_tile(Sums& sums, Ring<Shape::stages>& ring, int steps,
                                int warpgroup) const {
    const u32 a_place = warpgroup * Shape::of_warpgroup * Shape::box;
#pragma unroll 1
    for (int step = 0; step < steps; ++step, ring.next()) {
      const u32 stage = shared + ring.slot * Shape::stage;
      mbarrier_wait(full(ring.slot), ring.phase);
#pragma unroll
      for (int r = 0; r < Shape::of_warpgroup; ++r) {
        float part[Shape::columns / 2];
        wgmma_fence();
        multiply(part, stage + a_place + r * Shape::box, stage + Shape::b_in_stage);
        wgmma_commit();
        wgmma_wait<0>();
        settle(part);
        add(sums[r], part);
      }
      release(ring.slot);
    }
  }

  INGOT_FN void compute(int unit, Ring<Shape::stages>& ring, int warpgroup) const {
    const ProductTile tile = product_tile<Config>(params, unit);
    const int steps = (tile.end - tile.begin) * (Config::by_keys ? params.group : 1);
    Sums sums;
#pragma unroll
    for (int r = 0; r < Shape::of_warpgroup; ++r) clear(sums[r]);
    if constexpr (Shape::planes == 1) {
      take_tile(sums, ring, steps, warpgroup);
    } else {
      take_split_tile(sums, ring, steps, warpgroup);
    }
    const ProductTile done = product_tile<Config>(params, anew(unit));
#pragma unroll
    for (int r = 0; r < Shape::of_warpgroup; ++r) {
      settle(sums[r]);
      const int row = done.row + (warpgroup * Shape::of_warpgroup + r) * 64;
      store_product<Config>(params, done, row, params.dim - done.column, sums[r]);
    }
  }

  // By one thread, before the block meets.
  INGOT_FN void init_barriers() const {
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(full(i), 1);
      mbarrier_init(empty(i), Shape::warpgroups);
    }
    mbarrier_init_done();
  }
};

}  // namespace ingot
