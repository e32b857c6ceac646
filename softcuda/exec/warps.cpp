// Collective operations of warps, and the barriers of a block.
#include "exec/worker.hpp"

namespace softcuda {
namespace {

const char* name_of(Meeting kind) {
  switch (kind) {
    case Meeting::sync:
      return "__syncwarp";
    case Meeting::shuffle:
      return "a shuffle";
    case Meeting::vote:
      return "a vote";
    case Meeting::matrix:
      return "mma.sync";
    case Meeting::load_matrix:
      return "ldmatrix";
    case Meeting::store_matrix:
      return "stmatrix";
    default:
      return "wgmma";
  }
}

void complete(Warp& warp, Fiber* caller) {
  if (warp.last != nullptr) {
    if (warp.arrived != ~0u) {
      caller->worker->fail(caller, std::string(name_of(warp.kind)) + ": by all 32 lanes only");
    }
    warp.last(warp.exchange[warp.parity], caller);
  }
  warp.parity ^= 1;
  warp.arrived = 0;
  caller->worker->wake(warp.waiting);
}

void complete(NamedBarrier& barrier, Worker& worker) {
  barrier.arrived = 0;
  barrier.result = barrier.any;
  barrier.any = 0;
  worker.wake(barrier.waiting);
}

}  // namespace

void meet(Thread* thread, Meeting kind, u32 mask, void (*last)(Exchange*, Thread*)) {
  Fiber* const self = fiber_of(thread);
  Warp& warp = *self->warp_state;
  const u32 bit = 1u << self->lane;
  if (warp.arrived == 0) {
    warp.kind = kind;
    warp.mask = mask;
    warp.last = last;
  } else if (warp.kind != kind || warp.mask != mask) {
    self->worker->fail(self, std::string("lanes of a warp are at ") + name_of(warp.kind) +
                                 " and, this one, at " + name_of(kind) +
                                 " or have given other masks");
  }
  if ((mask & bit) == 0)
    self->worker->fail(self, "the mask of a warp's operation: lacks this lane");
  warp.arrived |= bit;
  if (warp.arrived == (mask & warp.alive)) {
    complete(warp, self);
  } else {
    warp.waiting.push(self);
    self->worker->suspend(self, name_of(kind));
  }
}

void leave_warp(Fiber* self) {
  Warp& warp = *self->warp_state;
  warp.alive &= ~(1u << self->lane);
  if (warp.arrived != 0 && warp.arrived == (warp.mask & warp.alive)) {
    complete(warp, warp.waiting.front());
  }
}

void barrier(Thread* thread, u32 id, u32 threads, bool waits) {
  Fiber* const self = fiber_of(thread);
  Worker& worker = *self->worker;
  if (id >= 16) worker.fail(self, "bar: there is no barrier " + std::to_string(id));
  if (threads % 32 != 0 || threads > worker.launch().threads()) {
    worker.fail(self, "bar: " + std::to_string(threads) + " threads");
  }
  NamedBarrier& barrier = self->block->barriers[id];
  if (barrier.arrived == 0) barrier.threads = threads;
  if (barrier.threads != threads) {
    worker.fail(self, "bar " + std::to_string(id) + ": some threads say " +
                          std::to_string(barrier.threads) + " threads, this one " +
                          std::to_string(threads));
  }
  const u32 expected = threads == 0 ? self->block->alive : threads;
  if (++barrier.arrived == expected) {
    complete(barrier, worker);
  } else if (waits) {
    barrier.waiting.push(self);
    worker.suspend(self, "a named barrier");
  }
}

int barrier_or(Thread* thread, int value) {
  NamedBarrier& zero = fiber_of(thread)->block->barriers[0];
  zero.any |= value != 0 ? 1 : 0;
  barrier(thread, 0, 0, true);
  return zero.result;
}

void leave_barriers(Fiber* self) {
  NamedBarrier& zero = self->block->barriers[0];
  if (zero.arrived != 0 && zero.threads == 0 && zero.arrived == self->block->alive) {
    complete(zero, *self->worker);
  }
}

}  // namespace softcuda
