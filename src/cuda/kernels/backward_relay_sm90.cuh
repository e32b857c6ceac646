// The whole backward pass on Hopper in one grid, for heads to 128: some blocks make dk, dv and dS
// of keys while others make dq of keys before them. The first are bound by the tensor cores, the
// second by memory: together neither waits, and there are no rounds of multiprocessors to fill.
#include "cuda/kernels/backward_stored_steps.cuh"
#include "cuda/kernels/product_steps.cuh"

namespace ingot {

// Config of the product for dq.
struct DqConfig {
  using element = Config::element;
  using output = Config::dq_type;
  static constexpr int planes = 1, columns = (Config::head_dim + 15) / 16 * 16;
  static constexpr int block_m = Config::block_m, warpgroups = 2, stages = Config::stages_dq;
  static constexpr bool masked = Config::masked, by_keys = false;
};

// A unit of work.
struct RelayUnit {
  int chunk;  // negative: there is no more
  int index;  // within the chunk
  bool of_dq;
};

// Chunk by chunk, the units of dq come `lag` chunks behind and early, `dq_in_turn` of them before
// each unit of keys, so that their matrices are free when the slot is due again.
INGOT_FN RelayUnit relay_unit(const RelayParams& relay, int key_units, int ticket) {
  const int of_chunk = key_units + relay.dq_tiles;
  const int chunk = ticket / of_chunk, place = ticket - chunk * of_chunk;
  const int turn = place / (relay.dq_in_turn + 1);
  const int dq = place - turn;  // of them before this place, if there were enough
  const bool of_dq =
      dq < relay.dq_tiles && place - turn * (relay.dq_in_turn + 1) < relay.dq_in_turn;
  if (of_dq) return {chunk - relay.lag, dq, true};
  return {chunk, place - min(dq, relay.dq_tiles), false};
}

INGOT_FN int take_ticket(int* ticket) { return atomicAdd(ticket, 1); }

// Waits for other blocks' units, and sees what they wrote.
INGOT_FN void wait_for(const int* done, int count) {
  int seen;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(done) : "memory");
  } while (seen < count);
}
INGOT_FN void tell(int* done) {
  asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(done) : "memory");
}
// Between what the copy engine wrote or reads and ordinary accesses, whichever way.
INGOT_FN void fence_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

struct Relay {
  const StoredParams& stored;
  const ProductParams& product;
  const RelayParams& relay;
  const u32 shared;

  static constexpr int stages_dq = DqConfig::stages;
  using Keys = KeysShape<Config>;
  using Dq = ProductShape<DqConfig>;
  static constexpr int tiles_end = Keys::bytes > Dq::bytes ? Keys::bytes : Dq::bytes;
  static constexpr int unit_at = (tiles_end + 15) / 16 * 16;  // what all threads are told
  static constexpr int tile_at = unit_at + 16, bytes = tile_at + 32;

  INGOT_FN int key_units() const { return stored.tiles * relay.heads; }

  // By one thread: a unit that is there, and all that it waits for is done.
  INGOT_FN RelayUnit next_unit() const {
    RelayUnit unit;
    const int tickets = (relay.chunks + relay.lag) * (key_units() + relay.dq_tiles);
    do {
      const int ticket = take_ticket(relay.ticket);
      if (ticket >= tickets) return {-1, 0, false};
      unit = relay_unit(relay, key_units(), ticket);
    } while (unit.chunk < 0 || unit.chunk >= relay.chunks);
    if (unit.of_dq) {
      wait_for(relay.keys_done + unit.chunk, key_units());
      const bool adds = product.add != nullptr && unit.chunk > 0;
      if (adds) wait_for(relay.dq_done + unit.chunk - 1, relay.dq_tiles);
    } else if (unit.chunk >= relay.slots) {
      wait_for(relay.dq_done + unit.chunk - relay.slots, relay.dq_tiles);
    }
    return unit;
  }

  // The block meets; every thread is told the unit, and its tile where there is one. `Takes`: here
  // is the thread that takes it (the code of others has too few registers even to compile it).
  template <bool Takes>
  INGOT_FN RelayUnit share_unit() const {
    if (Takes && threadIdx.x == 0) {
      const RelayUnit unit = next_unit();
      const bool is_there = unit.chunk >= 0 && (unit.of_dq ? has_dq(unit) : has_keys(unit));
      store_shared(shared + unit_at, unit.chunk);
      store_shared(shared + unit_at + 4, is_there ? unit.index : -1);
      store_shared(shared + unit_at + 8, unit.of_dq ? 1 : 0);
      if (is_there) tell_tile(unit);
    }
    fence_async();
    __syncthreads();
    fence_async();
    return unit();
  }
  INGOT_FN void tell_tile(const RelayUnit& unit) const {
    int facts[8];
    if (unit.of_dq) {
      const ProductTile tile = product_tile<DqConfig>(product_of(unit.chunk), unit.index);
      facts[0] = tile.batch, facts[1] = tile.head_in_batch, facts[2] = tile.row;
      facts[3] = tile.begin, facts[4] = tile.end, facts[5] = tile.matrix, facts[6] = tile.head;
      facts[7] = tile.head_b;
    } else {
      const KeyTile tile = key_tile<Config>(stored_of(unit.chunk), unit.index);
      facts[0] = tile.batch, facts[1] = tile.head_kv, facts[2] = tile.key;
      facts[3] = tile.begin, facts[4] = tile.end, facts[5] = tile.matrix, facts[6] = tile.stored;
      facts[7] = 0;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) store_shared(shared + tile_at + 4 * i, facts[i]);
  }

  // Read again where they are needed: registers are short in between.
  INGOT_FN RelayUnit unit() const {
    return {load_shared(shared + unit_at), load_shared(shared + unit_at + 4),
            load_shared(shared + unit_at + 8) != 0};
  }
  INGOT_FN int fact(int i) const { return load_shared(shared + tile_at + 4 * i); }
  INGOT_FN KeyTile keys_tile() const {
    return {fact(0), fact(1), fact(2), fact(6), fact(5), fact(3), fact(4)};
  }
  INGOT_FN ProductTile dq_tile() const {
    ProductTile tile;
    tile.batch = fact(0), tile.head_in_batch = fact(1), tile.row = fact(2);
    tile.begin = fact(3), tile.end = fact(4), tile.matrix = fact(5), tile.head = fact(6);
    tile.head_b = fact(7);
    tile.rows_end = static_cast<int>(stored.score.seqlen_q);
    tile.column = 0;
    return tile;
  }

  // Chunks are pieces of the keys of one head, or some heads.
  INGOT_FN StoredMatrices place_of(int chunk) const {
    const int piece = chunk % relay.pieces, head = chunk / relay.pieces * relay.heads;
    StoredMatrices place = stored.stored;
    place.head_first = head * stored.group;
    place.key_first = piece * relay.keys;
    place.keys = min(relay.keys, static_cast<int>(stored.score.seqlen_k) - place.key_first);
    return place;
  }
  INGOT_FN int matrix_of(int chunk) const {
    return chunk % relay.slots * relay.heads * stored.group;
  }

  INGOT_FN StoredParams stored_of(int chunk) const {
    StoredParams params = stored;
    params.stored = place_of(chunk);
    params.matrix_first = matrix_of(chunk);
    return params;
  }
  INGOT_FN ProductParams product_of(int chunk) const {
    ProductParams params = product;
    params.stored = place_of(chunk);
    params.head_first = params.stored.head_first;
    params.stored.head_first -= matrix_of(chunk);
    const int piece = chunk % relay.pieces;
    if (piece == 0) params.add = nullptr;
    if (piece == relay.pieces - 1) params.partial = nullptr;
    return params;
  }

  // Is there such a tile? The last chunk may have fewer heads, the last piece fewer keys.
  INGOT_FN bool has_keys(const RelayUnit& unit) const {
    const int head = unit.chunk / relay.pieces * relay.heads + unit.index / stored.tiles;
    const int key = unit.index % stored.tiles * Keys::block_keys;
    return head < relay.heads_total && key < place_of(unit.chunk).keys;
  }
  INGOT_FN bool has_dq(const RelayUnit& unit) const {
    const ProductParams params = product_of(unit.chunk);
    const int head = params.head_first + product_tile<DqConfig>(params, unit.index).head;
    return head < relay.heads_total * stored.group;
  }

  // As ProductSteps::load, with next to nothing in registers.
  INGOT_FN void load_dq(const TensorMap& ds, const TensorMap& k_rows) const {
    const ProductSteps<DqConfig> steps{product, shared};
    const int key_first = unit().chunk % relay.pieces * relay.keys;
    Ring<Dq::stages> ring;
#pragma unroll 1
    for (int block = fact(3); block < fact(4); ++block, ring.next()) {
      const u32 stage = shared + ring.slot * Dq::stage, barrier = steps.full(ring.slot);
      mbarrier_wait(steps.empty(ring.slot), ring.phase ^ 1);
      mbarrier_arrive_expect(barrier, Dq::stage);
#pragma unroll 1
      for (int i = 0; i < Dq::row_blocks; ++i) {
        const int query = fact(2) + i * 64;
        const bool is_there = is_stored(stored.score, query, key_first + block * 64);
        const BoxAt at{{is_there ? query : stored.stored.rows_padded, block * 64, 0, fact(5), 0}};
        tma_load(stage + i * Dq::box, ds, at, barrier);
      }
#pragma unroll 1
      for (int i = 0; i < Dq::panels; ++i) {
        const BoxAt at{{i * 64, key_first + block * 64, fact(7), fact(0), 0}};
        tma_load(stage + Dq::b_in_stage + i * Dq::box, k_rows, at, barrier);
      }
    }
  }

  // Warps of the third warpgroup. They know of a chunk what its tiles say.
  INGOT_FN void move_tiles(bool of_dq, int warp, const TensorMap& k, const TensorMap& v,
                           const TensorMap& q, const TensorMap& dout, const TensorMap& ds,
                           const TensorMap& k_rows) const {
    if (of_dq) {
      if (warp == 8) load_dq(ds, k_rows);
    } else {
      const KeysSteps<Config> steps{stored, shared};
      if (warp == 8) steps.load([&] { return keys_tile(); }, k, v, q, dout);
      if (warp == 9 || warp == 10) steps.store(keys_tile(), ds, warp - 9);
    }
  }

  INGOT_FN void multiply_dq(int warpgroup) const {
    const ProductSteps<DqConfig> steps{product, shared};
    Ring<Dq::stages> ring;
    typename ProductSteps<DqConfig>::Sums sums;
#pragma unroll
    for (int r = 0; r < Dq::of_warpgroup; ++r) clear(sums[r]);
    const ProductTile tile = dq_tile();
    steps.take_tile(sums, ring, tile.end - tile.begin, warpgroup);
#pragma unroll
    for (int r = 0; r < Dq::of_warpgroup; ++r) {
      settle(sums[r]);
      const ProductTile done = dq_tile();
      const int row = done.row + (warpgroup * Dq::of_warpgroup + r) * 64;
      store_product<DqConfig>(product_of(unit().chunk), done, row, Config::head_dim, sums[r]);
    }
  }

  INGOT_FN void multiply_keys(int warpgroup) const {
    compute(KeysSteps<Config>{stored, shared}, keys_tile(), warpgroup, [&] { return keys_tile(); });
  }

  template <bool Takes>
  INGOT_FN void init_barriers(const RelayUnit& unit) const {
    if (!unit.of_dq) return init_key_barriers<Config>(shared);
    if (Takes && threadIdx.x == 0) ProductSteps<DqConfig>{product, shared}.init_barriers();
    __syncthreads();
  }

  // The block meets; the unit is done for all others.
  template <bool Takes>
  INGOT_FN void finish() const {
    fence_async();
    __syncthreads();
    if (!Takes || threadIdx.x != 0) return;
    const RelayUnit unit = this->unit();
    if (unit.of_dq) {
      for (int at = Dq::full; at < Dq::bytes; at += 8) mbarrier_end(shared + at);
    } else {
      for (int at = Keys::keys_full; at < Keys::bytes; at += 8) mbarrier_end(shared + at);
    }
    __threadfence();
    tell((unit.of_dq ? relay.dq_done : relay.keys_done) + unit.chunk);
  }
};

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(ingot::KeysShape<Config>::threads, 1) ingot_kernel(
    const __grid_constant__ ingot::StoredParams stored,
    const __grid_constant__ ingot::ProductParams product,
    const __grid_constant__ ingot::RelayParams params, const __grid_constant__ ingot::TensorMap k,
    const __grid_constant__ ingot::TensorMap v, const __grid_constant__ ingot::TensorMap q,
    const __grid_constant__ ingot::TensorMap dout, const __grid_constant__ ingot::TensorMap ds,
    const __grid_constant__ ingot::TensorMap k_rows) {
  using namespace ingot;
  extern __shared__ __align__(1024) char memory[];
  const Relay relay{stored, product, params, shared_address(memory)};
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= 8) {
    give_registers<KeysShape<Config>::loader_registers>();
    for (RelayUnit unit = relay.share_unit<false>(); unit.chunk >= 0;
         unit = relay.share_unit<false>()) {
      relay.init_barriers<false>(unit);
      if (threadIdx.x % 32 == 0 && unit.index >= 0) {
        relay.move_tiles(unit.of_dq, warp, k, v, q, dout, ds, k_rows);
      }
      __syncwarp();
      relay.finish<false>();
    }
  } else {
    take_registers<KeysShape<Config>::registers>();
#pragma unroll 1
    for (RelayUnit unit = relay.share_unit<true>(); unit.chunk >= 0;
         unit = relay.share_unit<true>()) {
      relay.init_barriers<true>(unit);
      if (unit.index >= 0) {
        if (unit.of_dq) {
          relay.multiply_dq(warp / 4);
        } else {
          relay.multiply_keys(warp / 4);
        }
      }
      relay.finish<true>();
    }
  }
}
