// Tensor memory accelerator: boxes of a tensor to shared memory. One instruction a function.
#pragma once

#include "cuda/kernels/dialect.h"
#include "cuda/kernels/params.h"

namespace ingot {

// Coordinates of a box, fastest first.
struct BoxAt {
  int x[5];
};

INGOT_FN void tma_load(u32 to, const TensorMap& map, const BoxAt& at, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4, %5, %6}], [%7];" ::"r"(to),
      "l"(&map), "r"(at.x[0]), "r"(at.x[1]), "r"(at.x[2]), "r"(at.x[3]), "r"(at.x[4]), "r"(barrier)
      : "memory");
}

// To the same place of every block of the cluster in `mask`.
INGOT_FN void tma_load_multicast(u32 to, const TensorMap& map, const BoxAt& at, u32 barrier,
                                 u16 mask) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %4, %5, %6}], [%7], %8;" ::"r"(to),
      "l"(&map), "r"(at.x[0]), "r"(at.x[1]), "r"(at.x[2]), "r"(at.x[3]), "r"(at.x[4]), "r"(barrier),
      "h"(mask)
      : "memory");
}

// A box from shared memory to a tensor. Stores of a thread are committed in groups, which it waits
// for: until shared memory is read, or until the tensor is written.
INGOT_FN void tma_store(const TensorMap& map, const BoxAt& at, u32 from) {
  asm volatile(
      "cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4, %5}], [%6];" ::
          "l"(&map),
      "r"(at.x[0]), "r"(at.x[1]), "r"(at.x[2]), "r"(at.x[3]), "r"(at.x[4]), "r"(from)
      : "memory");
}
INGOT_FN void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int InFlight>
INGOT_FN void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(InFlight) : "memory");
}
template <int InFlight>
INGOT_FN void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(InFlight) : "memory");
}

// Contiguous bytes, a multiple of 16, to shared memory.
INGOT_FN void bulk_load(u32 to, const void* from, int bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

}  // namespace ingot
