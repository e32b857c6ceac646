// The sum of dQ over key blocks, in f32 in global memory, in an order that never changes.
//
// Of every query block a counter says how many key blocks have added to its sum; they add in the
// order of the grid. So a block waits only for blocks before it in the grid, which the device has
// started before: whatever the grid, and whatever else the device does, the first of those that are
// not done never waits. The first adder stores, so that nothing has to be cleared; the last makes
// dq of the sum.
//
// Two threads ask for turns, one for even steps and one for odd ones, and pass them on when the sum
// is visible to all: the latency of memory is theirs, not that of the warpgroup that adds.
#pragma once

#include "cuda/kernels/backward_fused_shape.cuh"
#include "cuda/kernels/store_columns.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace ingot {

INGOT_FN int load_acquire(const int* from) {
  int x;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
  return x;
}
INGOT_FN void store_release(int* to, int x) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
// Past the first-level cache, which does not see what other multiprocessors write.
INGOT_FN void load_4(const float* from, float* x) {
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3])
               : "l"(from)
               : "memory");
}
INGOT_FN void store_4(float* to, const float* x) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x[0]),
               "f"(x[1]), "f"(x[2]), "f"(x[3])
               : "memory");
}
// Exclusive by its turn: the order of additions to a number is that of the turns.
INGOT_FN void add_4(float* to, const float* x) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x[0]),
               "f"(x[1]), "f"(x[2]), "f"(x[3])
               : "memory");
}

// A block's turn at the sum of a query block: how many add before it, and whether none does after.
struct SumTurn {
  int before;
  bool is_last;
};

template <class Config>
struct FusedSums {
  using Shape = FusedShape<Config>;
  using T = typename Config::element;
  using Slot = Place<Shape::slots>;

  const FusedParams& params;
  const KeyBlock& keys;
  const u32 shared;

  INGOT_FN SumTurn turn_of(const Walk& walk) const {
    int begin, end;
    key_blocks_of<Config>(params, walk.block, begin, end);
    const int before = params.last_first ? end - 1 - keys.index : keys.index - begin;
    return {before, before == end - begin - 1};
  }
  INGOT_FN u32 turn_barrier(int step) const { return shared + Shape::turn + 8 * (step % 2); }
  INGOT_FN u32 added_barrier(int step) const { return shared + Shape::added + 8 * (step % 2); }
  // The same for both barriers of a step.
  INGOT_FN static u32 phase(int step) { return static_cast<u32>(step / 2) & 1; }

  // What a marked block leaves as a count: the blocks after it are marked, too.
  static constexpr int broken_sum = -1;

  // Bounded, as mbarrier_wait is. False if the turn will not come.
  INGOT_FN static bool await_count(const int* counter, int count) {
    int now = load_acquire(counter);
    for (u32 polls = 0; polls < (1u << 26) && now != count && now != broken_sum; ++polls) {
      now = load_acquire(counter);
    }
    return now == count;
  }

  // ---- the threads that ask ------------------------------------------------------------------

  INGOT_FN void ask(int first) const {
    const int steps = keys.count() * params.group;
    Walk walk(params, keys);
    if (first == 1) walk.next(params, keys);
#pragma unroll 1
    for (int step = first; step < steps; step += 2) {
      const SumTurn turn = turn_of(walk);
      const int head = head_of_batch(params, keys, walk);
      int* const counter =
          params.turns + static_cast<Index>(head) * params.query_blocks + walk.block;
      if (!await_count(counter, turn.before)) mark_fault();
      mbarrier_arrive(turn_barrier(step));
      mbarrier_wait(added_barrier(step), phase(step));
      if (!turn.is_last) store_release(counter, is_marked() ? broken_sum : turn.before + 1);
      walk.next(params, keys);
      walk.next(params, keys);
    }
  }

  // ---- the warpgroup that adds ---------------------------------------------------------------

  // dQ of 64 queries from dS of all keys of the block; `accumulate` 0 overwrites.
  INGOT_FN void multiply(float (&dq)[Shape::dim / 2], int step, int accumulate) const {
    const u32 slot = Slot(step).slot;
    const u64 ds = wgmma_tile(shared + Shape::ds_at + slot * 2 * Shape::tile, Shape::tile);
    const u64 k = wgmma_tile(shared + Shape::k_at, Shape::tile);
    mbarrier_wait(shared + Shape::ds_full + 8 * slot, Slot(step).phase);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < Shape::block_n / 16; ++i) {
      Wgmma<T, Shape::dim>::template ss<1, 1>(dq, ds + i * 128, k + i * 128, i > 0 || accumulate);
    }
    wgmma_commit();
    wgmma_wait<0>();
    settle(dq);
    if (threadIdx.x % 128 == 0) mbarrier_arrive(shared + Shape::ds_empty + 8 * slot);
  }

  // This thread's place in the sum; its numbers lie in pieces of 4, 512 apart.
  INGOT_FN float* sum_of(const Walk& walk) const {
    const int head = head_of_batch(params, keys, walk) - params.head_first * params.group;
    const Index tile = static_cast<Index>(head) * params.query_blocks + walk.block;
    return params.sums + tile * Shape::sum_elements + threadIdx.x % 128 * 4;
  }

  INGOT_FN void add(const float (&dq)[Shape::dim / 2], float* sum, bool is_first) const {
    if (is_first) {
#pragma unroll
      for (int i = 0; i < Shape::dim / 8; ++i) store_4(sum + i * 512, dq + 4 * i);
    } else {
#pragma unroll
      for (int i = 0; i < Shape::dim / 8; ++i) add_4(sum + i * 512, dq + 4 * i);
    }
  }

  INGOT_FN void load(float (&dq)[Shape::dim / 2], const float* sum) const {
#pragma unroll
    for (int i = 0; i < Shape::dim / 8; ++i) load_4(sum + i * 512, dq + 4 * i);
  }

  INGOT_FN void store(const float (&dq)[Shape::dim / 2], const Walk& walk, float factor) const {
    using Output = typename Config::dq_type;
    if (params.dq.data == nullptr) return;
    const Index* stride = params.dq.stride;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int thread = anew(threadIdx.x) % 128;
      const int row = walk.block * 64 + thread / 32 * 16 + thread % 32 / 4 + 8 * h;
      Output* const to = static_cast<Output*>(params.dq.data) + keys.batch * stride[0] +
                         query_head(params, keys, walk) * stride[1] + row * stride[2];
      store_columns<Config::head_dim>(to, stride[3], params.dq.vector, row < params.score.seqlen_q,
                                      dq, h, factor);
    }
  }

  INGOT_FN void await_turn(int step) const { mbarrier_wait(turn_barrier(step), phase(step)); }
  INGOT_FN void end_turn(int step) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(added_barrier(step));
  }

  // The last adder takes the sum while dS is being made, and adds to it: it would fall behind the
  // warpgroups with keys if it waited for memory after its product.
  INGOT_FN void run() const {
    const int steps = keys.count() * params.group;
    Walk walk(params, keys);
#pragma unroll 1
    for (int step = 0; step < steps; ++step, walk.next(params, keys)) {
      const SumTurn turn = turn_of(walk);
      float dq[Shape::dim / 2];
      if (turn.is_last) {
        await_turn(step);
        if (turn.before > 0) load(dq, sum_of(walk));
        end_turn(step);
      }
      multiply(dq, step, turn.is_last && turn.before > 0);
      if (turn.is_last) {
        store(dq, walk, params.score.scale);
      } else {
        await_turn(step);
        add(dq, sum_of(walk), turn.before == 0);
        end_turn(step);
      }
    }
    if (Config::masked) clear_unseen();
  }

  // Queries that see no key: no block comes to them, so the first of the grid does.
  INGOT_FN void clear_unseen() const {
    if (keys.index != (params.last_first ? params.key_blocks - 1 : 0)) return;
    Walk walk(params, keys);
    float nothing[Shape::dim / 2];
#pragma unroll
    for (int i = 0; i < Shape::dim / 2; ++i) nothing[i] = 0.0f;
    const int blocks = ceil_64(params.score.seqlen_q);
#pragma unroll 1
    for (walk.block = 0; walk.block < blocks; ++walk.block) {
      int begin, end;
      key_blocks_of<Config>(params, walk.block, begin, end);
      if (begin != end) continue;
#pragma unroll 1
      for (walk.head = 0; walk.head < params.group; ++walk.head) store(nothing, walk, 0.0f);
    }
  }
};

}  // namespace ingot
