// Barriers of Hopper: mbarriers in shared memory, named barriers, clusters, and the registers that
// warpgroups trade. One instruction a function.
#pragma once

#include "cuda/kernels/dialect.h"
#include "cuda/kernels/fault_params.h"

namespace ingot {

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

// ---- waits that run out ----
//
// Waits are bounded: a fault elsewhere must not hang the device. A trap would make ptxas forget the
// registers that setmaxnreg gives, so a thread whose wait runs out marks its block and goes on with
// whatever is there; from then on the block stores NaN, and its threads tell the host at their end.

// The mark of a block: the last word of its dynamic shared memory, of which hosts ask for more than
// kernels place.
INGOT_FN u32 fault_mark() {
  extern __shared__ u32 ingot_dynamic_start[];
  u32 bytes;
  asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
  return shared_address(ingot_dynamic_start) + bytes - 4;
}
INGOT_FN void mark_fault() { store_shared(fault_mark(), 1); }
INGOT_FN bool is_marked() { return load_shared(fault_mark()) != 0; }
// By one thread, before the others go on.
INGOT_FN void clear_mark(bool marked = false) { store_shared(fault_mark(), marked ? 1 : 0); }

// NaN for a block that is marked, else x.
INGOT_FN float unless_marked(float x) {
  return is_marked() ? __builtin_bit_cast(float, 0x7FC00000) : x;
}

// Before a thread ends.
INGOT_FN void tell_fault(const FaultWords& words) {
  if (!is_marked() || words.seen == nullptr) return;
  *static_cast<volatile unsigned*>(words.seen) = 1;
  *static_cast<volatile unsigned*>(words.told) = 1;
  __threadfence_system();
}

constexpr u32 most_polls = 1u << 22;

// For who computes, and goes on with whatever is there.
INGOT_FN void mbarrier_wait(u32 barrier, u32 phase) {
  u32 polls = 0;
  while (!mbarrier_try_wait(barrier, phase)) {
    if (++polls < most_polls) continue;
    mark_fault();
    return;
  }
}
// For who loads, and stops if it is false: a tile that is asked for before its slot is free would
// break the barrier, and with it the device's context.
INGOT_FN bool mbarrier_await(u32 barrier, u32 phase) {
  for (u32 polls = 0; polls < most_polls; ++polls) {
    if (mbarrier_try_wait(barrier, phase)) return true;
  }
  mark_fault();
  return false;
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
