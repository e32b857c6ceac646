// Barriers of Hopper: mbarriers in shared memory, named barriers, clusters, and the registers that
// warpgroups trade. One instruction a function.
#pragma once

#include "cuda/kernels/dialect.h"

namespace ingot {

INGOT_FN u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

INGOT_FN void store_shared(u32 to, int x) {
  asm volatile("st.shared.s32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
INGOT_FN int load_shared(u32 from) {
  int x;
  asm volatile("ld.shared.s32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
  return x;
}

INGOT_FN void store_shared(u32 to, const u32 (&x)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x[0]), "r"(x[1]),
               "r"(x[2]), "r"(x[3])
               : "memory");
}
INGOT_FN void load_shared(u32 from, u32 (&x)[4]) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(from)
               : "memory");
}

INGOT_FN void mbarrier_init(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Its memory is memory again.
INGOT_FN void mbarrier_end(u32 barrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
INGOT_FN void mbarrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
INGOT_FN void mbarrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
INGOT_FN void mbarrier_arrive_expect(u32 barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
INGOT_FN u32 mbarrier_of_block(u32 barrier, int rank) {
  u32 r;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(barrier), "r"(rank));
  return r;
}
// Without a scope: the message is "slot free", no data of the sender has to be seen with it. With
// .release.cluster it costs 290 clocks.
INGOT_FN void mbarrier_arrive_remote(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
INGOT_FN bool mbarrier_try_wait(u32 barrier, u32 phase) {
  u32 done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(phase)
      : "memory");
  return done != 0;
}
// Bounded: a fault elsewhere must not hang the device. A trap here would make ptxas forget the
// registers that setmaxnreg gives.
INGOT_FN void mbarrier_wait(u32 barrier, u32 phase) {
  for (u32 polls = 0; polls < (1u << 22) && !mbarrier_try_wait(barrier, phase); ++polls) {
  }
}

INGOT_FN void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
INGOT_FN void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Grids launched to overlap: lets the next one start when all blocks have said so, and waits until
// the one before is done (at once where this grid was launched the usual way).
INGOT_FN void start_next_grid() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
INGOT_FN void wait_for_previous_grid() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

INGOT_FN int cluster_rank() {
  u32 r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return static_cast<int>(r);
}
INGOT_FN void cluster_sync() {
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

template <int Count>
INGOT_FN void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
INGOT_FN void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

// Where the n-th tile of a stream lies in a ring of slots, and the parity that those who wait for
// it to be full pass; who waits for the slot to be empty passes the other one.
template <int Slots>
struct Place {
  static_assert(Slots > 0 && (Slots & (Slots - 1)) == 0, "slots: a power of two");
  int slot;
  u32 phase;

  INGOT_FN explicit Place(int n) : slot(n % Slots), phase(static_cast<u32>(n / Slots) & 1) {}
};

// The slot of a ring whose next tile is due, for any number of slots: waits for a full slot pass
// `phase`, waits for an empty one the other.
template <int Slots>
struct Ring {
  int slot = 0;
  u32 phase = 0;

  INGOT_FN void next() {
    const bool wraps = ++slot == Slots;
    slot = wraps ? 0 : slot;
    phase ^= wraps ? 1u : 0u;
  }
};

}  // namespace ingot
