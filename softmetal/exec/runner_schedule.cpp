#include <algorithm>
#include <bit>

#include "runner.hpp"

// Who runs next: barriers, simdgroup operations and the schedule.

namespace softmetal::exec {
namespace {

// A random schedule takes the core away behind 1 to so many accesses to memory.
constexpr u32 kLongestRun = 16;
constexpr u32 kDevice = 1, kThreadgroup = 2;  // mem_flags

}  // namespace

void Runner::collective_entry(void* lane, CollectiveOp op, u32 site, u32 kind) {
  current_runner->collective(lane, op, site, kind);
}

void Runner::barrier_entry(u32 flags, u32 site) { current_runner->barrier(flags, site); }

/// The current thread waits; returns when it may go on.
inline void Runner::block() {
  const auto next = static_cast<u32>(pick());
  if (next != current_) switch_to(next);
}

inline void Runner::switch_to(u32 next) {
  const u32 from = current_;
  current_ = next;
  if (contexts_[next].sp == nullptr) give_stack(next);
  switch_context(contexts_[from], contexts_[next]);
}

/// A random schedule's access to memory at which another thread comes first.
void Runner::preempt() {
  until_preemption_ = random_.below(kLongestRun);
  simds_[current_ / 32].ready |= 1u << current_ % 32;
  block();
}

/// The next thread to run, no longer marked ready; -1 when all have returned.
int Runner::pick() {
  while (live_ != 0) {
    const int found = in_order() ? pick_in_order() : pick_random();
    if (found >= 0) return found;
    resolve();
  }
  return -1;
}

inline int Runner::take(u32 simd, u32 lane) {
  simds_[simd].ready &= ~(1u << lane);
  return static_cast<int>(simd * 32 + lane);
}

inline int Runner::pick_in_order() {
  const u32 own = current_ / 32;
  const u32 ready = simds_[own].ready;
  if (ready != 0) {
    const u32 later = ready & ~((2u << current_ % 32) - 1);
    return take(own, static_cast<u32>(std::countr_zero(later != 0 ? later : ready)));
  }
  for (u32 s = own + 1; s < simd_count_; ++s) {
    if (simds_[s].ready != 0) return take(s, static_cast<u32>(std::countr_zero(simds_[s].ready)));
  }
  for (u32 s = 0; s < own; ++s) {
    if (simds_[s].ready != 0) return take(s, static_cast<u32>(std::countr_zero(simds_[s].ready)));
  }
  return -1;
}

int Runner::pick_random() {
  std::array<u32, kMaxThreads / 32> able{};
  u32 n = 0;
  for (u32 s = 0; s < simd_count_; ++s) {
    if (simds_[s].ready != 0) able[n++] = s;
  }
  if (n == 0) return -1;
  const u32 s = able[random_.below(n)];
  u32 ready = simds_[s].ready;
  for (u32 skip = random_.below(static_cast<u32>(std::popcount(ready))); skip > 0; --skip) {
    ready &= ready - 1;
  }
  return take(s, static_cast<u32>(std::countr_zero(ready)));
}

/// Nobody can run: lets those that wait in a part of their simdgroup go on, or opens the barrier.
void Runner::resolve() {
  bool moved = false;
  for (u32 s = 0; s < simd_count_; ++s) {
    if (simds_[s].waiting != 0) {
      fire_odd(simds_[s]);
      moved = true;
    }
  }
  if (!moved) fire_barrier();
}

void Runner::collective(void* lane, CollectiveOp op, u32 site, u32 kind) {
  const u32 l = current_ % 32;
  SimdGroup& simd = simds_[current_ / 32];
  simd.lanes[l] = lane;
  simd.sites[l] = site;
  simd.ops[l] = op;
  simd.kinds[l] = kind;
  if (simd.waiting == 0) {
    simd.site = site;
    simd.op = op;
    simd.mixed = false;
  } else {
    simd.mixed |= site != simd.site || op != simd.op;
  }
  simd.waiting |= 1u << l;
  if (simd.waiting == simd.live && !simd.mixed) {
    fire(simd, simd.waiting);
    if (in_order()) {
      simd.ready &= ~(1u << l);  // the last to come goes on at once
      return;
    }
  }
  block();
}

void Runner::fire(SimdGroup& simd, u32 mask) {
  const auto first = static_cast<u32>(std::countr_zero(mask));
  const u32 kind = simd.kinds[first] & ((1u << softmetal_abi::flags_shift) - 1);
  if (kind != softmetal_abi::collective_any && mask != ~0u && mask != simd.launched) {
    const auto thread = static_cast<u32>(&simd - simds_.data()) * 32 + first;
    report_site(msl::FindingKind::divergent_collective, simd.sites[first], thread,
                std::to_string(std::popcount(mask)) + " of " +
                    std::to_string(std::popcount(simd.launched)) +
                    " threads of the simdgroup take part");
  }
  if (simd.ops[first] != nullptr) simd.ops[first](simd.lanes.data(), mask);
  if (kind == softmetal_abi::collective_barrier) {
    ++counters_.simdgroup_barriers;
    ++clock_;
    const u32 flags = simd.kinds[first] >> softmetal_abi::flags_shift;
    if ((flags & kDevice) != 0) simd.ordered[0] = clock_;
    if ((flags & kThreadgroup) != 0) simd.ordered[1] = clock_;
  } else if (kind == softmetal_abi::collective_any) {
    ++counters_.simd_operations;
  }
  simd.waiting &= ~mask;
  simd.ready |= mask;
}

/// Fires the earliest place in the text at which some threads of the simdgroup wait.
void Runner::fire_odd(SimdGroup& simd) {
  auto least = static_cast<u32>(std::countr_zero(simd.waiting));
  for (u32 rest = simd.waiting; rest != 0; rest &= rest - 1) {
    const auto l = static_cast<u32>(std::countr_zero(rest));
    if (simd.sites[l] < simd.sites[least]) least = l;
  }
  u32 mask = 0;
  for (u32 rest = simd.waiting; rest != 0; rest &= rest - 1) {
    const auto l = static_cast<u32>(std::countr_zero(rest));
    if (simd.sites[l] == simd.sites[least] && simd.ops[l] == simd.ops[least]) mask |= 1u << l;
  }
  fire(simd, mask);
  simd.mixed = false;
  if (simd.waiting == 0) return;
  const auto first = static_cast<u32>(std::countr_zero(simd.waiting));
  simd.site = simd.sites[first];
  simd.op = simd.ops[first];
  for (u32 rest = simd.waiting; rest != 0; rest &= rest - 1) {
    const auto l = static_cast<u32>(std::countr_zero(rest));
    simd.mixed |= simd.sites[l] != simd.site || simd.ops[l] != simd.op;
  }
}

void Runner::barrier(u32 flags, u32 site) {
  simds_[current_ / 32].at_barrier |= 1u << current_ % 32;
  barrier_sites_[current_] = site;
  if (at_barrier_ == 0) {
    barrier_flags_ = flags;
    barrier_site_ = site;
    barrier_mixed_ = false;
  } else {
    barrier_flags_ &= flags;
    barrier_mixed_ |= site != barrier_site_;
  }
  if (++at_barrier_ == live_) {
    fire_barrier();
    if (in_order()) {
      simds_[current_ / 32].ready &= ~(1u << current_ % 32);
      return;
    }
  }
  block();
}

/// Reports a barrier that not all threads of the threadgroup wait at, or not at the same place.
void Runner::check_barrier_sites() {
  u32 first = 0;
  while (((simds_[first / 32].at_barrier >> first % 32) & 1) == 0) ++first;
  if (live_ != thread_count_) {
    report_site(msl::FindingKind::divergent_barrier, barrier_sites_[first], first,
                std::to_string(thread_count_ - live_) + " of " + std::to_string(thread_count_) +
                    " threads had returned");
  }
  for (u32 t = first + 1; t < thread_count_; ++t) {
    const bool here = ((simds_[t / 32].at_barrier >> t % 32) & 1) != 0;
    if (!here || barrier_sites_[t] == barrier_sites_[first]) continue;
    report_site(msl::FindingKind::divergent_barrier, barrier_sites_[t], t,
                "another thread waits at line " + std::to_string(barrier_sites_[first] >> 10));
    return;
  }
}

void Runner::fire_barrier() {
  if (barrier_mixed_ || live_ != thread_count_) check_barrier_sites();
  ++counters_.barriers;
  ++clock_;
  if ((barrier_flags_ & kDevice) != 0) ordered_[0] = clock_;
  if ((barrier_flags_ & kThreadgroup) != 0) ordered_[1] = clock_;
  at_barrier_ = 0;
  for (u32 s = 0; s < simd_count_; ++s) {
    simds_[s].ready |= simds_[s].at_barrier;
    simds_[s].at_barrier = 0;
  }
}

}  // namespace softmetal::exec
