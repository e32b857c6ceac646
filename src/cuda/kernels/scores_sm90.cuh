// The first kernel of the unfused backward pass on Hopper: P and dS of a chunk of keys, for all
// queries, to the workspace. A tile is 128 keys, 64 a warpgroup, by 128 or 256
// queries: S^T = K Q^T, then dP^T = V dO^T, over columns that come 64 at a time. Warpgroups read
// the same stages; one starts ahead, so that one multiplies while the other makes weights.
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/scores_weights.cuh"
#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/terms.cuh"
#include "cuda/kernels/tma.cuh"

namespace ingot {

struct ScoresMaps {
  const TensorMap &q, &k, &v, &dout, &p, &ds;
};

template <class Config>
struct ScoresSteps {
  using Shape = ScoresShape<Config>;
  using T = typename Config::element;
  static constexpr int planes = Shape::planes, count = Shape::count;
  // Stages that the first warpgroup is ahead: before it needs what the second has to release.
  static constexpr int lead = Shape::stages - 1 < Shape::chunks ? Shape::stages - 1 : Shape::chunks;

  const ScoresParams& params;
  const ScoresMaps& maps;
  const u32 shared;  // address of the map in ScoresShape
  const int warpgroup;
  Ring<Shape::stages> ring;
  int taken = 0;             // stages so far
  u32 statistics_phase = 0;  // lse and delta take turns

  INGOT_FN u32 full(int slot) const { return shared + Shape::full + 8 * slot; }
  INGOT_FN u32 empty(int slot) const { return shared + Shape::empty + 8 * slot; }
  INGOT_FN u32 statistics_full() const { return shared + Shape::statistics_full; }
  INGOT_FN u32 statistics_empty() const { return shared + Shape::statistics_empty; }

  // ---- loading -------------------------------------------------------------------------------

  // Where a tile lies in its tensors.
  struct Heads {
    int batch, head, head_kv;
  };
  INGOT_FN Heads heads_of(const ScoresTile& tile) const {
    const int total = params.stored.head_first + tile.matrix, batch = total / params.num_heads;
    const int head = total - batch * params.num_heads;
    return {batch, head, head / params.group};
  }

  INGOT_FN void load_chunks(const TensorMap& k, const TensorMap& q, const ScoresTile& tile,
                            const Heads& heads, int chunks) {
    for (int chunk = 0; chunk < chunks; ++chunk, ring.next()) {
      const u32 to = shared + ring.slot * Shape::stage, barrier = full(ring.slot);
      mbarrier_wait(empty(ring.slot), ring.phase ^ 1);
      mbarrier_arrive_expect(barrier, Shape::stage);
#pragma unroll 1
      for (int plane = 0; plane < planes; ++plane) {
        tma_load(to + plane * Shape::k_box, k,
                 BoxAt{{chunk * 64, tile.key, heads.head_kv, heads.batch, plane}}, barrier);
        tma_load(to + planes * Shape::k_box + plane * Shape::q_box, q,
                 BoxAt{{chunk * 64, tile.query, heads.head, heads.batch, plane}}, barrier);
      }
    }
  }

  // Loads lse or delta of a tile, and tells those that compute which tile follows.
  INGOT_FN void load_statistics(const float* from, const ScoresTile& tile, const ScoresTile& next) {
    const int rows_padded = params.stored.rows_padded;
    const int bytes = min(Shape::queries, rows_padded - tile.query) * 4;
    mbarrier_wait(statistics_empty(), statistics_phase ^ 1);
    store_shared(shared + Shape::next_at,
                 {static_cast<u32>(next.matrix), static_cast<u32>(next.query),
                  static_cast<u32>(next.key), 0u});
    mbarrier_arrive_expect(statistics_full(), bytes);
    from += static_cast<Index>(params.stored.head_first + tile.matrix) * rows_padded + tile.query;
    bulk_load(shared + Shape::statistics_at, from, bytes, statistics_full());
    statistics_phase ^= 1;
  }

  // One thread feeds the block, and finds its tiles.
  INGOT_FN void load() {
    ScoresScan<Config> scan{params};
    ScoresTile tile = scan.tile();
    while (tile.matrix >= 0) {
      const Heads heads = heads_of(tile);
      load_chunks(maps.k, maps.q, tile, heads, Shape::chunks);
      load_statistics(params.lse_log2, tile, tile);
      load_chunks(maps.v, maps.dout, tile, heads, Shape::chunks_v);
      scan.next();
      const ScoresTile next = scan.tile();
      load_statistics(params.delta, tile, next);
      tile = next;
    }
  }

  // ---- computing -----------------------------------------------------------------------------

  INGOT_FN bool is_first_thread() const { return threadIdx.x % 128 == 0; }
  INGOT_FN void release(int slot) const {
    if (is_first_thread()) mbarrier_arrive(empty(slot));
  }
  // The second warpgroup starts when the first has taken `lead` stages.
  INGOT_FN void pass_lead(bool now) const {
    if (Config::ordered && warpgroup == 0 && now) named_barrier_arrive(3, 256);
  }

  // Issues the products of a stage; from 0 where operands are split.
  INGOT_FN void multiply(float* sum, int slot, int accumulate) const {
    const u32 stage = shared + slot * Shape::stage;
    const u64 k = wgmma_tile(stage + warpgroup * 64 * 128, 0);
    const u64 q = wgmma_tile(stage + planes * Shape::k_box, 0);
    constexpr int terms = terms_of(planes);
#pragma unroll
    for (int term = terms - 1; term >= 0; --term) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int k_bytes = first_plane(term) * Shape::k_box + i * 32;
        const int q_bytes = second_plane(term) * Shape::q_box + i * 32;
        const bool starts = i == 0 && term == terms - 1;
        Wgmma<T, Shape::queries>::template ss<0, 0>(sum, k + k_bytes / 16, q + q_bytes / 16,
                                                    starts ? accumulate : 1);
      }
    }
  }

  // Sum over the columns of one contraction.
  INGOT_FN void take_chunks(float (&sum)[count], int chunks) {
    int before = 0;
    if (planes > 1) clear(sum);
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; ++chunk, ++taken, ring.next()) {
      pass_lead(taken == lead);
      mbarrier_wait(full(ring.slot), ring.phase);
      if constexpr (planes == 1) {
        wgmma_fence();
        multiply(sum, ring.slot, chunk > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (chunk > 0) release(before);
        before = ring.slot;
      } else {  // tensor cores truncate: what a stage gave is added with rounding
        float part[count];
        wgmma_fence();
        multiply(part, ring.slot, 0);
        wgmma_commit();
        wgmma_wait<0>();
        settle(part);
        release(ring.slot);
        add(sum, part);
      }
    }
    if constexpr (planes == 1) {
      wgmma_wait<0>();
      settle(sum);
      release(before);
    }
  }

  // The part from accumulator First on to a matrix, plane by plane. Only tiles with a visible pair
  // are written.
  template <int First>
  INGOT_FN void store_part(float* x, const TensorMap& map, const ScoresTile& tile) const {
    const u32 out = shared + Shape::out_at + warpgroup * Shape::out;
    const int thread = threadIdx.x % 128, lane = thread % 32;
    const u32 row = out + (thread / 32 * 16 + lane % 16) * 128;
    const int key = tile.key + warpgroup * 64, query = tile.query + 2 * First;
#pragma unroll
    for (int plane = 0; plane < planes; ++plane) {
      if (is_first_thread()) bulk_wait_read<0>();
      named_barrier_sync(1 + warpgroup, 128);
#pragma unroll
      for (int i = 0; i < Shape::part_count / 8; ++i) {
        u32 packed[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float* const pair = x + First + 8 * i + 2 * j;
          packed[j] = pack<T>(pair[0], pair[1]);
          if (plane + 1 < planes) {
            pair[0] -= low_of<T>(packed[j]);
            pair[1] -= high_of<T>(packed[j]);
          }
        }
        store_matrix(row + i / 4 * Shape::tile + (((2 * i % 8 + lane / 16) ^ (lane % 8)) << 4),
                     packed);
      }
      fence_async_shared();
      named_barrier_sync(1 + warpgroup, 128);
      if (!is_first_thread()) continue;
      for (int i = 0; i < Shape::part; i += stored_tile) {
        if (!is_stored(params.score, query + i, key)) continue;
        const BoxAt at{{query + i, key - params.stored.key_first, plane, tile.matrix, 0}};
        tma_store(map, at, out + i / stored_tile * Shape::tile);
      }
      bulk_commit();
    }
  }

  INGOT_FN u32 statistics_of_thread() const {
    return shared + Shape::statistics_at + threadIdx.x % 4 * 8;
  }

  template <int First = 0>
  INGOT_FN void weigh(float (&s)[count], Weights<Config>& weights, const ScoreFactors& factors,
                      const SeenBy& seen, const ScoresTile& tile) const {
    weigh_tile<Config, First>(s, weights, factors, params.score, seen, statistics_of_thread());
    store_part<First>(s, maps.p, tile);
    if constexpr (First + Shape::part_count < count) {
      weigh<First + Shape::part_count>(s, weights, factors, seen, tile);
    }
  }

  template <int First = 0>
  INGOT_FN void differentiate(float (&dp)[count], const Weights<Config>& weights,
                              const SeenBy& seen, const ScoresTile& tile) const {
    if (seen.all) {
      differentiate_part<Config, false, First>(dp, weights, seen, statistics_of_thread());
    } else {
      differentiate_part<Config, true, First>(dp, weights, seen, statistics_of_thread());
    }
    store_part<First>(dp, maps.ds, tile);
    if constexpr (First + Shape::part_count < count) {
      differentiate<First + Shape::part_count>(dp, weights, seen, tile);
    }
  }

  // Returns the tile that came with them.
  INGOT_FN ScoresTile wait_statistics() {
    mbarrier_wait(statistics_full(), statistics_phase);
    statistics_phase ^= 1;
    u32 x[4];
    load_shared(shared + Shape::next_at, x);
    return {static_cast<int>(x[0]), static_cast<int>(x[1]), static_cast<int>(x[2])};
  }
  // All threads have read them: a barrier of the warpgroup lies behind, in store_part.
  INGOT_FN void release_statistics() const {
    if (is_first_thread()) mbarrier_arrive(statistics_empty());
  }
  INGOT_FN SeenBy seen_in(const ScoresTile& tile) const {
    return seen_by<Config>(params.score, tile.key + warpgroup * 64, anew(tile.query));
  }

  INGOT_FN void compute() {
    const ScoreFactors factors = make_score_factors(params.score);
    if (Config::ordered && warpgroup == 1) named_barrier_sync(3, 256);
    ScoresTile tile = ScoresScan<Config>{params}.tile();
#pragma unroll 1
    while (tile.matrix >= 0) {
      float sum[count];
      Weights<Config> weights;
      take_chunks(sum, Shape::chunks);
      wait_statistics();
      weigh(sum, weights, factors,
            with_large_rows<Config>(seen_in(tile), params, tile, shared + Shape::statistics_at),
            tile);
      release_statistics();
      take_chunks(sum, Shape::chunks_v);  // dP, in the same registers
      const ScoresTile next = wait_statistics();
      differentiate(sum, weights, seen_in(tile), tile);
      release_statistics();
      tile = next;
    }
    pass_lead(taken <= lead);
    if (is_first_thread()) bulk_wait<0>();
  }
};

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(ingot::ScoresShape<Config>::threads, 1) ingot_kernel(
    const __grid_constant__ ingot::ScoresParams params, const __grid_constant__ ingot::TensorMap q,
    const __grid_constant__ ingot::TensorMap k, const __grid_constant__ ingot::TensorMap v,
    const __grid_constant__ ingot::TensorMap dout, const __grid_constant__ ingot::TensorMap p,
    const __grid_constant__ ingot::TensorMap ds) {
  using namespace ingot;
  using Shape = ScoresShape<Config>;
  extern __shared__ char memory[];
  const u32 shared = (shared_address(memory) + 1023) & ~1023u;
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  const ScoresMaps maps{q, k, v, dout, p, ds};
  ScoresSteps<Config> steps{params, maps, shared, warpgroup};
  if (threadIdx.x == 0) {
    clear_mark();
    for (int i = 0; i < Shape::stages; ++i) {
      mbarrier_init(steps.full(i), 1);
      mbarrier_init(steps.empty(i), Shape::warpgroups);
    }
    mbarrier_init(steps.statistics_full(), 1);
    mbarrier_init(steps.statistics_empty(), Shape::warpgroups);
    mbarrier_init_done();
  }
  __syncthreads();
  if (warpgroup == Shape::warpgroups) {
    give_registers<Shape::loader_registers>();
    if (threadIdx.x % 128 == 0) steps.load();
  } else {
    take_registers<Shape::registers>();
    steps.compute();
  }
  tell_fault(params.faults);
}
