#include "runner.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace softmetal::exec {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr std::size_t kSinkBytes = 65536 + 64;
// An odd number of cache lines, so that stacks do not compete for the same sets.
constexpr std::size_t kStaggerBytes = 13 * 64;

thread_local Runner* current_runner = nullptr;

}  // namespace

Runner* Runner::current() { return current_runner; }

Runner::Runner() : threads_(kMaxThreads), sink_(kSinkBytes) {}
Runner::~Runner() = default;

void Runner::begin(const Job& job) {
  job_ = &job;
  counters_ = {};
  current_runner = this;
  adopt_thread(main_);
  std::size_t total = 0;
  for (std::size_t i = 0; i < dynamic_offset_.size(); ++i) {
    dynamic_offset_[i] = total;
    total += (job.dynamic_bytes[i] + 15) / 16 * 16 + 64;  // a gap between slots
  }
  dynamic_.resize(total + 64);
  regions_.clear();
  if (job.regions != nullptr) {
    std::array<void*, 64> begins{};
    std::array<u64, 64> sizes{};
    const u32 n = job.regions(begins.data(), sizes.data(), 64);
    for (u32 i = 0; i < n; ++i) regions_.push_back({static_cast<std::byte*>(begins[i]), sizes[i]});
  }
  shadow_bytes_ = 0;
  region_shadow_.clear();
  for (const auto& region : regions_) {
    region_shadow_.push_back(shadow_bytes_);
    shadow_bytes_ += (region.bytes + 15) / 16 * 16;
  }
  dynamic_shadow_ = shadow_bytes_;
  shadow_bytes_ += dynamic_.size();
}

void Runner::poison() {
  constexpr int kPoison = 0xff;  // NaN in every float format
  for (const auto& region : regions_) std::memset(region.begin, kPoison, region.bytes);
  std::memset(dynamic_.data(), kPoison, dynamic_.size());
  if (job_->instrumented) group_shadow_.reset(shadow_bytes_);
}

void Runner::set_positions(msl::Size3 position, msl::Size3 size) {
  using namespace softmetal_abi;
  auto triple = [](msl::Size3 s) { return Triple{{s.x, s.y, s.z}}; };
  auto set = [&](u32 kind, Triple t) { args_.values[kind - arg_group_values] = t; };
  const msl::Size3& full = job_->threads;
  const msl::Size3 grid = job_->exact_grid.value_or(
      msl::Size3{job_->groups.x * full.x, job_->groups.y * full.y, job_->groups.z * full.z});
  auto simds = [](msl::Size3 s) { return static_cast<u32>((s.count() + 31) / 32); };
  set(arg_threadgroup_position_in_grid, triple(position));
  set(arg_threads_per_threadgroup, triple(size));
  set(arg_dispatch_threads_per_threadgroup, triple(full));
  set(arg_threads_per_grid, triple(grid));
  set(arg_threadgroups_per_grid, triple(job_->groups));
  set(arg_simdgroups_per_threadgroup, {{simds(size), 1, 1}});
  set(arg_dispatch_simdgroups_per_threadgroup, {{simds(full), 1, 1}});
  set(arg_threads_per_simdgroup, {{32, 1, 1}});
  set(arg_quadgroups_per_threadgroup, {{static_cast<u32>((size.count() + 3) / 4), 1, 1}});
  set(arg_dispatch_quadgroups_per_threadgroup, {{static_cast<u32>((full.count() + 3) / 4), 1, 1}});
  set(arg_grid_origin, {{0, 0, 0}});
  args_.zero_page = reinterpret_cast<u64>(job_->zero_page.data());
  for (u32 i = 0; i < softmetal_abi::kSlots; ++i) {
    const auto* data = job_->memory.slots[i].data;
    const u64 real = reinterpret_cast<u64>(data);
    args_.buffers[i] = data == nullptr ? 0 : job_->instrumented ? encode_address(i, 0) : real;
    const u64 own = reinterpret_cast<u64>(dynamic_.data() + dynamic_offset_[i]);
    args_.threadgroups[i] =
        job_->instrumented ? encode_address(kThreadgroupTag + i, 0) : (own + 15) / 16 * 16;
  }
}

void Runner::run_group(msl::Size3 position, u32 linear) {
  msl::Size3 size = job_->threads;
  if (job_->exact_grid) {
    auto rest = [](u32 grid, u32 at, u32 full) { return std::min(full, grid - at * full); };
    size = {rest(job_->exact_grid->x, position.x, size.x),
            rest(job_->exact_grid->y, position.y, size.y),
            rest(job_->exact_grid->z, position.z, size.z)};
  }
  position_ = position;
  size_ = size;
  group_linear_ = linear;
  steps_ = 0;
  out_of_steps_ = false;
  random_.seed(job_->options.schedule_seed * 0x9e3779b97f4a7c15u + linear);
  set_positions(position, size);
  poison();
  start_threads(size);
  const int first = pick();
  current_ = static_cast<u32>(first);
  threads_[current_].stack = acquire_stack();
  switch_context(main_, threads_[current_].stack->context());
  counters_.threadgroups += 1;
  counters_.threads += thread_count_;
}

void Runner::start_threads(msl::Size3 size) {
  thread_count_ = static_cast<u32>(size.count());
  simd_count_ = (thread_count_ + 31) / 32;
  live_ = thread_count_;
  at_barrier_ = 0;
  clock_ = 1;
  ordered_[0] = ordered_[1] = 0;
  current_ = 0;
  for (u32 s = 0; s < simd_count_; ++s) {
    const u32 lanes = std::min(32u, thread_count_ - s * 32);
    SimdGroup& simd = simds_[s];
    simd.launched = simd.live = simd.ready = lanes == 32 ? ~0u : (1u << lanes) - 1;
    simd.waiting = simd.at_barrier = 0;
    simd.mixed = false;
    simd.ordered[0] = simd.ordered[1] = 0;
  }
  u32 i = 0;
  for (u32 z = 0; z < size.z; ++z) {
    for (u32 y = 0; y < size.y; ++y) {
      for (u32 x = 0; x < size.x; ++x, ++i) {
        const msl::Size3& full = job_->threads;
        threads_[i].stack = nullptr;
        threads_[i].frame = {
            &args_,
            {{position_.x * full.x + x, position_.y * full.y + y, position_.z * full.z + z}},
            {{x, y, z}},
            i};
      }
    }
  }
}

Stack* Runner::acquire_stack() {
  if (free_stacks_.empty()) {
    stacks_.push_back(std::make_unique<Stack>(kStackBytes, kStaggerBytes * (stacks_.size() % 64)));
    free_stacks_.push_back(stacks_.back().get());
  }
  Stack* stack = free_stacks_.back();
  free_stacks_.pop_back();
  stack->prepare(&Runner::body, this);
  return stack;
}

/// One stack runs thread after thread as long as the next one has not begun yet.
void Runner::body(void* self) {
  Runner& r = *static_cast<Runner*>(self);
  Stack* const stack = r.threads_[r.current_].stack;
  arrived(stack->context());
  for (;;) {
    r.job_->entry(&r.threads_[r.current_].frame);
    r.finish_thread();
    const int next = r.pick();
    Context* to = &r.main_;
    if (next >= 0) {
      r.current_ = static_cast<u32>(next);
      Thread& thread = r.threads_[r.current_];
      if (thread.stack == nullptr) {
        thread.stack = stack;
        continue;
      }
      to = &thread.stack->context();
    }
    r.free_stacks_.push_back(stack);
    leave_context(stack->context(), *to);
  }
}

void Runner::finish_thread() {
  SimdGroup& simd = simds_[current_ / 32];
  simd.live &= ~(1u << current_ % 32);
  threads_[current_].stack = nullptr;
  --live_;
}

/// The current thread waits; returns when it may go on.
void Runner::block() {
  const int next = pick();
  if (next == static_cast<int>(current_)) return;
  Thread& from = threads_[current_];
  current_ = static_cast<u32>(next);
  Thread& to = threads_[current_];
  if (to.stack == nullptr) to.stack = acquire_stack();
  switch_context(from.stack->context(), to.stack->context());
}

/// The next thread to run, no longer marked ready; -1 when all have returned.
int Runner::pick() {
  while (live_ != 0) {
    const int found = job_->options.schedule_seed != 0 ? pick_random() : pick_in_order();
    if (found >= 0) return found;
    resolve();
  }
  return -1;
}

int Runner::take(u32 simd, u32 lane) {
  simds_[simd].ready &= ~(1u << lane);
  return static_cast<int>(simd * 32 + lane);
}

int Runner::pick_in_order() {
  const u32 own = current_ / 32;
  const u32 ready = simds_[own].ready;
  if (ready != 0) {
    const u32 later = ready & ~((2u << current_ % 32) - 1);
    return take(own, static_cast<u32>(std::countr_zero(later != 0 ? later : ready)));
  }
  for (u32 i = 1; i <= simd_count_; ++i) {
    const u32 s = (own + i) % simd_count_;
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
  const u64 r = random_();
  const u32 s = able[r % n];
  u32 ready = simds_[s].ready;
  for (u64 skip = (r >> 32) % static_cast<u32>(std::popcount(ready)); skip > 0; --skip) {
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
    if (job_->options.schedule_seed == 0) {
      simd.ready &= ~(1u << l);  // the last to come goes on at once
      return;
    }
  }
  block();
}

void Runner::fire(SimdGroup& simd, u32 mask) {
  const auto first = static_cast<u32>(std::countr_zero(mask));
  const u32 kind = simd.kinds[first];
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
    simd.ordered[0] = simd.ordered[1] = ++clock_;
  } else {
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
  barrier_flags_ = at_barrier_ == 0 ? flags : barrier_flags_ & flags;
  if (++at_barrier_ == live_) {
    fire_barrier();
    if (job_->options.schedule_seed == 0) {
      simds_[current_ / 32].ready &= ~(1u << current_ % 32);
      return;
    }
  }
  block();
}

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
  check_barrier_sites();
  constexpr u32 kDevice = 1, kThreadgroup = 2;  // mem_flags
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
