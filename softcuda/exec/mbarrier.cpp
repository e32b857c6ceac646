// mbarriers: 64 bits of shared memory, laid out as it suits us.
#include <cstring>

#include "exec/worker.hpp"

namespace softcuda {
namespace {

constexpr u32 most_arrivals = (1u << 20) - 1;

struct Phase {
  u32 expected, pending;  // arrivals of every phase, and those that this one lacks
  int bytes;              // that copies still owe
  u32 parity;
  bool is_valid;
};

Phase unpack(u64 word) {
  return {static_cast<u32>(word & most_arrivals), static_cast<u32>(word >> 20 & most_arrivals),
          static_cast<int>(static_cast<long long>(word << 2) >> 42),
          static_cast<u32>(word >> 62 & 1), word >> 63 == 0};
}

u64 pack(const Phase& x) {
  return x.expected | static_cast<u64>(x.pending) << 20 |
         (static_cast<u64>(static_cast<u32>(x.bytes)) & 0x3FFFFF) << 40 |
         static_cast<u64>(x.parity) << 62;
}

Phase read(Worker& worker, Fiber* self, const Place& at) {
  u64 word;
  std::memcpy(&word, at.data(), sizeof word);
  const Phase phase = unpack(word);
  if (!phase.is_valid) {
    worker.fail(self, "mbarrier at " + std::to_string(at.offset) + ": was not initialised");
  }
  return phase;
}

void write(Worker& worker, const Place& at, Phase phase) {
  if (phase.pending == 0 && phase.bytes == 0) {
    phase.pending = phase.expected;
    phase.parity ^= 1;
    for (auto& [address, waiting] : at.block->mbarrier_waits) {
      if (address == at.offset) worker.wake(waiting);
    }
  }
  const u64 word = pack(phase);
  std::memcpy(at.data(), &word, sizeof word);
}

}  // namespace

void mbarrier_init(Thread* thread, u32 address, u32 arrivals) {
  Fiber* const self = fiber_of(thread);
  const Place at = self->worker->place(self, address, 8, 8);
  if (arrivals == 0 || arrivals > most_arrivals) {
    self->worker->fail(self, "mbarrier.init: " + std::to_string(arrivals) + " arrivals");
  }
  const u64 word = pack({arrivals, arrivals, 0, 0, true});
  std::memcpy(at.data(), &word, sizeof word);
}

void mbarrier_arrive(Thread* thread, u32 address, u32 bytes) {
  Fiber* const self = fiber_of(thread);
  Worker& worker = *self->worker;
  const Place at = worker.place(self, address, 8, 8);
  Phase phase = read(worker, self, at);
  if (phase.pending == 0) {
    worker.fail(self, "mbarrier at " + std::to_string(at.offset) +
                          ": more arrivals than it was initialised with");
  }
  --phase.pending;
  phase.bytes += static_cast<int>(bytes);
  if (bytes > most_arrivals || phase.bytes > static_cast<int>(most_arrivals)) {
    worker.fail(self, "mbarrier at " + std::to_string(at.offset) + ": expects too many bytes");
  }
  write(worker, at, phase);
}

void mbarrier_complete(Worker& worker, Fiber* self, const Place& at, u32 bytes) {
  Phase phase = read(worker, self, at);
  phase.bytes -= static_cast<int>(bytes);
  write(worker, at, phase);
}

bool mbarrier_try_wait(Thread* thread, u32 address, u32 parity) {
  Fiber* const self = fiber_of(thread);
  Worker& worker = *self->worker;
  const Place at = worker.place(self, address, 8, 8);
  if (read(worker, self, at).parity != parity) return true;
  // Once all threads wait for ever, a thread that asks for the same again runs out of patience at
  // once: each switch of fibers for one question would take minutes.
  if (worker.is_stalled() && self->polled == at.data()) return false;
  self->polled = at.data();
  FiberList* list = nullptr;
  for (auto& [known, waiting] : at.block->mbarrier_waits) {
    if (known == at.offset) list = &waiting;
  }
  if (list == nullptr) {
    list = &at.block->mbarrier_waits.emplace_back(at.offset, FiberList{}).second;
  }
  list->push(self);
  worker.suspend(self, "an mbarrier");
  // Two phases on, it is not over again: as for a thread that asks too late.
  return read(worker, self, at).parity != parity;
}

}  // namespace softcuda
