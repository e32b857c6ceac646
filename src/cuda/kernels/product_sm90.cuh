// A stored matrix times a tensor of the caller, on Hopper: dq = dS K, dk = dS^T Q, dv = P^T dO. One
// warpgroup loads through the tensor memory accelerator, the others multiply and store. The
// matrices lie with their queries contiguous (stored_params.h): as keys by queries they are A by
// rows, as queries by keys A by columns, which products of 16-bit numbers may take; B is taken by
// columns.
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

  // One thread feeds the block.
  INGOT_FN void load(const TensorMap& a, const TensorMap& b) const {
    Ring<Shape::stages> ring;
    for (int unit = blockIdx.x; unit < params.units; unit += gridDim.x) {
      const ProductTile tile = product_tile<Config>(params, unit);
      for (int head = 0; head < params.sum_heads; ++head) {
        for (int block = tile.begin; block < tile.end; ++block, ring.next()) {
          const u32 stage = shared + ring.slot * Shape::stage, barrier = full(ring.slot);
          if (!mbarrier_await(empty(ring.slot), ring.phase ^ 1)) return;
          mbarrier_arrive_expect(barrier, Shape::stage);
          load_a(a, tile, block, tile.matrix + head, stage, barrier);
          load_b(b, tile, block, tile.head_b + head, stage + Shape::b_in_stage, barrier);
        }
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

  INGOT_FN void compute(int warpgroup) const {
    Ring<Shape::stages> ring;
#pragma unroll 1
    for (int unit = blockIdx.x; unit < params.units; unit += gridDim.x) {
      const ProductTile tile = product_tile<Config>(params, unit);
      const int steps = (tile.end - tile.begin) * params.sum_heads;
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
        store_product<Config>(params, done, row, sums[r]);
      }
    }
  }
};

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(ingot::ProductShape<Config>::threads, 1)
    ingot_kernel(const __grid_constant__ ingot::ProductParams params,
                 const __grid_constant__ ingot::TensorMap a,
                 const __grid_constant__ ingot::TensorMap b) {
  using namespace ingot;
  using Shape = ProductShape<Config>;
  extern __shared__ char memory[];
  const u32 shared = (shared_address(memory) + 1023) & ~1023u;
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  const ProductSteps<Config> steps{params, shared};
  start_next_grid();  // a product too: it reads nothing of this one
  if (threadIdx.x == 0) {
    clear_mark(params.faults.seen != nullptr && *params.faults.seen != 0);
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(steps.full(i), 1);
      mbarrier_init(steps.empty(i), Shape::warpgroups);
    }
    mbarrier_init_done();
  }
  __syncthreads();
  if (warpgroup == Shape::warpgroups) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 128 == 0) {
      steps.load(a, b);
      wait_for_previous_grid();  // who waits for this grid waits for those it overlapped
    }
  } else {
    take_registers<Shape::registers>();
    steps.compute(warpgroup);
  }
  tell_fault(params.faults);
}
