#include <algorithm>
#include <bit>

#include "runner.hpp"

// The checks of instrumented kernels: every access comes through Runner::access.

namespace softmetal::exec {
namespace {

using msl::FindingKind;
using namespace softmetal_abi;

constexpr u32 kSpaceDevice = 1, kSpaceThreadgroup = 3, kSpaceConstant = 5;
constexpr u64 kLongestRun = u64{1} << 40;

bool is_write(u32 what) { return (what & access_write) != 0; }
bool is_atomic(u32 what) { return (what & access_atomic) != 0; }
u32 space_of(u32 what) { return what >> access_space_shift; }

}  // namespace

std::string Runner::access_text(u32 what, std::size_t bytes) const {
  return std::string(is_atomic(what) ? "atomic " : "") + (is_write(what) ? "write" : "read") +
         " of " + std::to_string(bytes) + " bytes";
}

Accessor Runner::accessor(int space) const {
  return {current_, group_linear_, clock_, ordered_[space], simds_[current_ / 32].ordered[space]};
}

void Runner::report(FindingKind kind, const Fault& fault, std::string text) {
  msl::Finding f;
  f.kind = kind;
  f.kernel = job_->kernel;
  const auto& sites = *job_->sites;
  if (fault.site < sites.size()) {
    f.file = sites[fault.site].file;
    f.line = sites[fault.site].line;
  }
  f.threadgroup = position_;
  f.thread = thread_position();
  if (fault.slot >= 0) {
    f.buffer_index = fault.slot % static_cast<int>(kThreadgroupTag);
    f.buffer_label = job_->memory.slots[static_cast<std::size_t>(fault.slot)].label;
  }
  f.offset = fault.offset;
  f.text = std::move(text);
  job_->findings->add(std::move(f));
}

void Runner::report_site(FindingKind kind, u32 site, u32 thread, std::string text) {
  msl::Finding f;
  f.kind = kind;
  f.kernel = job_->kernel;
  const auto file = job_->collective_files->find(site);
  f.file = file != job_->collective_files->end() ? file->second : "program_source";
  f.line = static_cast<int>(site >> 10);
  f.threadgroup = position_;
  const auto& t = frames_[thread].in_group.v;
  f.thread = {t[0], t[1], t[2]};
  f.text = std::move(text);
  job_->findings->add(std::move(f));
}

void Runner::inactive_lane(u32 site, u32 lane) {
  report_site(FindingKind::inactive_lane, site, current_ / 32 * 32 + lane,
              "the source thread is not active");
}

/// By what was accessed, not by the type of the pointer: that may be of the generic space.
void Runner::count_bytes(u32 what, std::size_t bytes, const Fault& fault) {
  const bool group = fault.slot >= static_cast<int>(kThreadgroupTag) ||
                     (fault.slot < 0 && space_of(what) == kSpaceThreadgroup);
  const bool constant = fault.slot < 0
                            ? space_of(what) == kSpaceConstant
                            : !group && job_->constant[static_cast<std::size_t>(fault.slot)];
  const bool device = !group && !constant && (fault.slot >= 0 || space_of(what) == kSpaceDevice);
  if (group) {
    (is_write(what) ? counters_.threadgroup_bytes_written : counters_.threadgroup_bytes_read) +=
        bytes;
  } else if (constant) {
    counters_.constant_bytes_read += bytes;
  } else if (device) {
    (is_write(what) ? counters_.device_bytes_written : counters_.device_bytes_read) += bytes;
  }
}

/// The real address of an encoded one, or the sink after a finding.
std::byte* Runner::translate(u64 address, u32 what, std::size_t bytes, Fault& fault) {
  const auto slot = static_cast<u32>(address >> 48) - 1;
  if (slot >= kTagCount) return nullptr;
  fault.slot = static_cast<int>(slot);
  fault.offset = static_cast<std::int64_t>((address & 0xffffffffffffu) - kTagBias);
  std::byte* base = nullptr;
  std::size_t limit = 0;
  if (slot >= kThreadgroupTag) {
    const u32 i = slot - kThreadgroupTag;
    auto own = reinterpret_cast<u64>(dynamic_.data() + dynamic_offset_[i]);
    base = reinterpret_cast<std::byte*>((own + 15) / 16 * 16);
    limit = job_->dynamic_bytes[i];
  } else {
    base = job_->memory.slots[slot].data;
    limit = job_->memory.slots[slot].bytes;
  }
  const bool inside = fault.offset >= 0 && static_cast<u64>(fault.offset) <= limit &&
                      bytes <= limit - static_cast<u64>(fault.offset);
  if (!inside) {
    report(FindingKind::out_of_bounds, fault,
           access_text(what, bytes) + " at offset " + std::to_string(fault.offset) + " of " +
               std::to_string(limit) + " bytes");
    return nullptr;
  }
  if (is_write(what) && slot < kThreadgroupTag && !job_->memory.slots[slot].writable) {
    report(FindingKind::write_to_constant, fault,
           access_text(what, bytes) + " at offset " + std::to_string(fault.offset));
    return nullptr;
  }
  return base + fault.offset;
}

/// Addresses that carry no slot: static threadgroup memory, program constants, addresses that were
/// stored in buffers, and the thread's own stack.
std::byte* Runner::translate_raw(u64 address, u32 what, std::size_t bytes, Fault& fault) {
  auto* p = reinterpret_cast<std::byte*>(address);
  const u32 space = space_of(what);
  auto inside = [&](const std::byte* begin, std::size_t size) {
    return p >= begin && bytes <= size && p <= begin + (size - bytes);
  };
  if (space == kSpaceThreadgroup) {
    const StaticRegion* nearest = nullptr;
    for (const auto& region : regions_) {
      if (inside(region.begin, region.bytes)) {
        fault.offset = p - region.begin;
        return p;
      }
      if (p >= region.begin && (nearest == nullptr || region.begin > nearest->begin)) {
        nearest = &region;
      }
    }
    fault.offset = nearest != nullptr ? p - nearest->begin : 0;
    report(FindingKind::out_of_bounds, fault,
           access_text(what, bytes) + " outside static threadgroup memory, at offset " +
               std::to_string(fault.offset) +
               (nearest != nullptr ? " of " + std::to_string(nearest->bytes) + " bytes" : ""));
    return nullptr;
  }
  if (space != kSpaceDevice && address >= 4096) return p;
  if (!is_write(what) &&
      inside(job_->module_begin, static_cast<std::size_t>(job_->module_end - job_->module_begin))) {
    return p;
  }
  for (const auto& r : job_->memory.resident) {
    if (inside(r.data, r.bytes)) return p;
  }
  report(FindingKind::wild_pointer, fault,
         access_text(what, bytes) + (address < 4096 ? " through a null pointer (nothing bound?)"
                                                    : " through a pointer to no resident buffer"));
  return nullptr;
}

void Runner::check_group(std::byte* at, u32 what, std::size_t bytes, const Fault& fault) {
  std::size_t offset = 0;
  if (fault.slot >= 0) {
    offset = dynamic_shadow_ + static_cast<std::size_t>(at - dynamic_.data());
  } else {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      if (at >= regions_[i].begin && at < regions_[i].begin + regions_[i].bytes) {
        offset = region_shadow_[i] + static_cast<std::size_t>(at - regions_[i].begin);
        break;
      }
    }
  }
  if (job_->options.uninitialised && !is_write(what) &&
      group_shadow_.uninitialised(offset, bytes)) {
    report(FindingKind::uninitialised_read, fault,
           access_text(what, bytes) + " at offset " + std::to_string(fault.offset));
  }
  const Conflict c =
      group_shadow_.access(offset, bytes, is_write(what), is_atomic(what), accessor(1));
  if (c != Conflict::none && job_->options.races) {
    report(FindingKind::threadgroup_race, fault,
           access_text(what, bytes) + " at offset " + std::to_string(fault.offset) + ", " +
               conflict_text(c));
  }
}

void Runner::check_device(DeviceShadow& shadow, std::byte* at, u32 what, std::size_t bytes,
                          const Fault& fault) {
  if (clock_ > kLastDeviceStamp) return;
  const Conflict c = device_access(shadow, at, bytes, is_write(what), is_atomic(what), accessor(0));
  if (c == Conflict::none) return;
  report(FindingKind::device_race, fault,
         access_text(what, bytes) + " at offset " + std::to_string(fault.offset) + ", " +
             conflict_text(c));
}

void Runner::out_of_steps() {
  if (!out_of_steps_) {
    out_of_steps_ = true;
    report(FindingKind::timeout, Fault{~0u, -1, 0, 0},
           "more than " + std::to_string(job_->options.step_budget) + " memory accesses");
  }
  // The thread is abandoned where it stands; its stack is used again.
  const u32 abandoned = current_;
  finish_thread();
  const int next = pick();
  Context* to = &main_;
  if (next >= 0) {
    current_ = static_cast<u32>(next);
    if (contexts_[current_].sp == nullptr) give_stack(current_);
    to = &contexts_[current_];
  }
  free_stacks_.push_back(thread_stacks_[abandoned]);
  leave_context(contexts_[abandoned], *to);
}

void* Runner::access(u64 address, u32 what, u32 site, std::size_t bytes) {
  if (space_of(what) == 0 && address >> 48 == 0) return reinterpret_cast<void*>(address);
  if (++steps_ > step_limit_) [[unlikely]]
    out_of_steps();
  if (until_preemption_-- == 0) [[unlikely]]
    preempt();
  last_site_ = site;
  Fault fault{site, -1, 0, bytes};
  std::byte* real = address >> 48 != 0 ? translate(address, what, bytes, fault)
                                       : translate_raw(address, what, bytes, fault);
  if (job_->options.counters) count_bytes(what, bytes, fault);
  if (real == nullptr) {
    std::fill(sink_.begin(), sink_.end(), std::byte{0});
    if (bytes > sink_.size()) sink_.resize(std::min<u64>(bytes, kLongestRun));
    return sink_.data();
  }
  const u64 align = u64{1} << (what >> access_align_shift & 15);
  if (reinterpret_cast<u64>(real) % align != 0) {
    report(FindingKind::misaligned, fault,
           access_text(what, bytes) + " at offset " + std::to_string(fault.offset) +
               ", which is not a multiple of " + std::to_string(align));
  }
  const bool dynamic_group = fault.slot >= static_cast<int>(kThreadgroupTag);
  if (dynamic_group || space_of(what) == kSpaceThreadgroup) {
    if (job_->options.races || job_->options.uninitialised) check_group(real, what, bytes, fault);
  } else if (fault.slot >= 0) {
    const auto& slot = job_->memory.slots[static_cast<std::size_t>(fault.slot)];
    if (slot.shadow != nullptr) check_device(*slot.shadow, real, what, bytes, fault);
    if (slot.touched != nullptr) {
      const Touch how = is_atomic(what)  ? Touch::atomic
                        : is_write(what) ? Touch::write
                                         : Touch::read;
      slot.touched->touch(static_cast<std::size_t>(fault.offset), bytes, how);
    }
  }
  return real;
}

}  // namespace softmetal::exec
