#include "runner.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "crash.hpp"

namespace softmetal::exec {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr std::size_t kSinkBytes = 65536 + 64;
// An odd number of cache lines, so that stacks do not compete for the same sets.
constexpr std::size_t kStaggerBytes = 13 * 64;
constexpr std::size_t kGapBytes = 64;  // between the slots of dynamic threadgroup memory

u64 align16(u64 n) { return (n + 15) / 16 * 16; }

}  // namespace

constinit thread_local Runner* current_runner = nullptr;

namespace {

struct IdleRunners {
  std::mutex mutex;
  std::vector<std::unique_ptr<Runner>> runners;
};

// Never destroyed: a queue's thread may still run a kernel while the process ends.
IdleRunners& idle_runners() {
  static IdleRunners* const instance = new IdleRunners;
  return *instance;
}

}  // namespace

RunnerLoan::RunnerLoan() {
  prepare_thread_for_crashes();
  {
    const std::lock_guard lock(idle_runners().mutex);
    auto& idle = idle_runners().runners;
    if (!idle.empty()) {
      runner_ = std::move(idle.back());
      idle.pop_back();
    }
  }
  if (!runner_) runner_ = std::make_unique<Runner>();
  current_runner = runner_.get();
}

RunnerLoan::~RunnerLoan() {
  current_runner = nullptr;
  const std::lock_guard lock(idle_runners().mutex);
  idle_runners().runners.push_back(std::move(runner_));
}

Runner::Runner() : frames_(kMaxThreads), sink_(kSinkBytes) {}
Runner::~Runner() = default;

void Runner::begin(const Job& job) {
  job_ = &job;
  seed_ = job.options.schedule_seed;
  step_limit_ = job.options.step_budget != 0 ? job.options.step_budget : ~u64{0};
  counters_ = {};
  adopt_thread(main_);
  std::size_t total = 0;
  for (std::size_t i = 0; i < dynamic_offset_.size(); ++i) {
    dynamic_offset_[i] = total;
    if (job.dynamic_bytes[i] != 0) total += align16(job.dynamic_bytes[i]) + kGapBytes;
  }
  dynamic_.resize(total + kGapBytes);
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
    shadow_bytes_ += align16(region.bytes);
  }
  dynamic_shadow_ = shadow_bytes_;
  shadow_bytes_ += dynamic_.size();
  set_buffers();
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
}

/// What kernel arguments point to: plain addresses, or encoded ones for instrumented code.
void Runner::set_buffers() {
  args_.zero_page = reinterpret_cast<u64>(job_->zero_page.data());
  for (u32 i = 0; i < softmetal_abi::kSlots; ++i) {
    const auto* data = job_->memory.slots[i].data;
    const u64 start = job_->memory.slots[i].start;
    const u64 real = reinterpret_cast<u64>(data) + start;
    args_.buffers[i] = data == nullptr ? 0 : job_->instrumented ? encode_address(i, start) : real;
    const u64 own = reinterpret_cast<u64>(dynamic_.data() + dynamic_offset_[i]);
    args_.threadgroups[i] =
        job_->instrumented ? encode_address(kThreadgroupTag + i, 0) : align16(own);
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
  random_.seed(seed_ * 0x9e3779b97f4a7c15u + linear);
  set_positions(position, size);
  poison();
  start_threads(size);
  current_ = static_cast<u32>(pick());
  give_stack(current_);
  in_kernel_ = true;
  switch_context(main_, contexts_[current_]);
  in_kernel_ = false;
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
  current_ = 31;  // the next of its simdgroup is thread 0
  until_preemption_ = in_order() ? ~u64{0} : 0;
  last_site_ = ~0u;
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
        contexts_[i].sp = nullptr;
        frames_[i] = {
            &args_,
            {{position_.x * full.x + x, position_.y * full.y + y, position_.z * full.z + z}},
            {{x, y, z}},
            i};
      }
    }
  }
}

/// Gives a thread that begins a stack of its own.
void Runner::give_stack(u32 thread) {
  if (free_stacks_.empty()) {
    stacks_.push_back(std::make_unique<Stack>(kStackBytes, kStaggerBytes * (stacks_.size() % 64)));
    free_stacks_.push_back(stacks_.back().get());
  }
  thread_stacks_[thread] = free_stacks_.back();
  free_stacks_.pop_back();
  contexts_[thread] = thread_stacks_[thread]->prepare(&Runner::body, this);
}

/// One stack runs thread after thread as long as the next one has not begun yet.
void Runner::body(void* self) {
  Runner& r = *static_cast<Runner*>(self);
  arrived(r.contexts_[r.current_]);
  for (;;) {
    r.job_->entry(&r.frames_[r.current_]);
    const u32 done = r.current_;
    r.finish_thread();
    const int next = r.pick();
    Context* to = &r.main_;
    if (next >= 0) {
      r.current_ = static_cast<u32>(next);
      if (r.contexts_[r.current_].sp == nullptr) {
        r.contexts_[r.current_] = r.contexts_[done];
        r.thread_stacks_[r.current_] = r.thread_stacks_[done];
        continue;
      }
      to = &r.contexts_[r.current_];
    }
    r.free_stacks_.push_back(r.thread_stacks_[done]);
    leave_context(r.contexts_[done], *to);
  }
}

void Runner::finish_thread() {
  simds_[current_ / 32].live &= ~(1u << current_ % 32);
  --live_;
}

msl::Size3 Runner::thread_position() const {
  const auto& t = frames_[current_].in_group.v;
  return {t[0], t[1], t[2]};
}

const Site* Runner::last_site() const {
  return job_->instrumented && last_site_ < job_->sites->size() ? &(*job_->sites)[last_site_]
                                                                : nullptr;
}

bool Runner::is_stack_guard(const void* address) const {
  return std::any_of(stacks_.begin(), stacks_.end(),
                     [address](const auto& stack) { return stack->guards(address); });
}

}  // namespace softmetal::exec
