#include "memory.hpp"

#include <algorithm>

namespace softmetal::exec {
namespace {

constexpr u32 kManyInSimd = 1024;  // plus the simdgroup: read by several of its threads
constexpr u32 kMany = 0xffe;       // read by threads of several simdgroups

u32 simdgroup_of(u32 code) { return code < kManyInSimd ? code / 32 : code - kManyInSimd; }

u32 group_word(u32 thread, u32 mask, u32 stamp) { return (thread + 1) | mask << 12 | stamp << 14; }
u32 word_thread(u32 w) { return (w & 0xfff) - 1; }
u32 word_mask(u32 w) { return w >> 12 & 3; }
u32 word_stamp(u32 w) { return w >> 14; }

/// Whether what `w` records is unordered with what thread `a` does now; both times are stamps.
bool unordered(u32 w, u32 mask, const Accessor& a) {
  if ((w & 0xfff) == 0 || (word_mask(w) & mask) == 0) return false;
  const u32 thread = word_thread(w);
  if (thread == a.thread) return false;
  const bool same_simd = simdgroup_of(thread) == a.thread / 32;
  return word_stamp(w) >= (same_simd ? std::max(a.simd_ordered, a.group_ordered) : a.group_ordered);
}

/// Bytes of the cell at `cell` that [offset, offset + bytes) covers, as a mask.
u32 covered(std::size_t cell, std::size_t offset, std::size_t bytes) {
  const bool low = cell * 2 >= offset;
  const bool high = cell * 2 + 1 < offset + bytes;
  return (low ? 1u : 0u) | (high ? 2u : 0u);
}

/// The code of "this thread and whoever `old` stands for".
u32 joint_code(u32 old, const Accessor& a) {
  return simdgroup_of(old) == a.thread / 32 ? kManyInSimd + a.thread / 32 : kMany;
}

u32 merged_reader(u32 old, u32 mask, const Accessor& a) {
  const bool other = (old & 0xfff) != 0 && word_thread(old) != a.thread;
  const bool fresh = !other || word_stamp(old) < a.group_ordered;
  return fresh ? group_word(a.thread, mask, a.stamp)
               : group_word(joint_code(word_thread(old), a), mask | word_mask(old), a.stamp);
}

// Device cells: thread + 1 in 12 bits, mask 2, atomic 1, stamp 25, threadgroup 24.
constexpr u32 kAnyGroup = 0xffffff;

u64 device_word(u32 thread, u32 mask, bool atomic, const Accessor& a) {
  return (thread + 1) | u64{mask} << 12 | u64{atomic} << 14 | u64{a.stamp & 0x1ffffff} << 15 |
         u64{a.group & kAnyGroup} << 40;
}

u32 device_group(u64 w) { return static_cast<u32>(w >> 40); }

bool device_unordered(u64 w, u32 mask, const Accessor& a) {
  if ((w & 0xfff) == 0 || ((w >> 12 & 3) & mask) == 0) return false;
  if (device_group(w) != (a.group & kAnyGroup)) return true;
  const u32 thread = static_cast<u32>(w & 0xfff) - 1;
  if (thread == a.thread) return false;
  const bool same_simd = simdgroup_of(thread) == a.thread / 32;
  const u32 since = same_simd ? std::max(a.simd_ordered, a.group_ordered) : a.group_ordered;
  return (w >> 15 & 0x1ffffff) >= since;
}

u64 device_reader(u64 old, u32 mask, const Accessor& a) {
  if (!device_unordered(old, 3, a)) return device_word(a.thread, mask, false, a);
  const bool own_group = device_group(old) == (a.group & kAnyGroup);
  const u32 code = own_group ? joint_code(static_cast<u32>(old & 0xfff) - 1, a) : kMany;
  // A cell read by several threadgroups belongs to none of them: a write of any conflicts.
  Accessor reader = a;
  if (!own_group) reader.group = kAnyGroup;
  return device_word(code, mask | (old >> 12 & 3), false, reader);
}

}  // namespace

const char* conflict_text(Conflict conflict) {
  switch (conflict) {
    case Conflict::none:
      return "no conflict";
    case Conflict::read_after_write:
      return "read of what another thread wrote without a barrier";
    case Conflict::write_after_read:
      return "write of what another thread read without a barrier";
    case Conflict::write_after_write:
      return "write of what another thread wrote without a barrier";
  }
  return "";
}

void MemoryMap::build_shadows() {
  std::vector<Slot*> bound;
  for (auto& slot : slots) {
    if (slot.data != nullptr) bound.push_back(&slot);
  }
  std::sort(bound.begin(), bound.end(), [](auto* a, auto* b) { return a->data < b->data; });
  for (std::size_t first = 0; first < bound.size();) {
    const std::byte* end = bound[first]->data + bound[first]->bytes;
    bool writable = false;
    std::size_t last = first;
    for (; last < bound.size() && bound[last]->data <= end; ++last) {
      end = std::max<const std::byte*>(end, bound[last]->data + bound[last]->bytes);
      writable |= bound[last]->writable;
    }
    if (writable) {
      auto shadow = std::make_unique<DeviceShadow>(
          bound[first]->data, static_cast<std::size_t>(end - bound[first]->data));
      for (std::size_t i = first; i < last; ++i) bound[i]->shadow = shadow.get();
      shadows.push_back(std::move(shadow));
    }
    first = last;
  }
}

// GroupCell::state: bytes ever written, whether the last write was atomic, and in whose life.
namespace {
constexpr u32 kWritten = 3, kAtomic = 4, kLifeShift = 3, kLastLife = (1u << 29) - 1;
constexpr u32 kLastGroupStamp = (1u << 18) - 1;
}  // namespace

void GroupShadow::reset(std::size_t bytes) {
  base_ = 0;
  if (cells_.size() < bytes / 2 + 1 || life_ == kLastLife) {
    cells_.assign(bytes / 2 + 1, GroupCell{});
    life_ = 0;
  }
  ++life_;
}

GroupCell& GroupShadow::cell(std::size_t index) {
  GroupCell& c = cells_[index];
  if (c.state >> kLifeShift != life_) c = {0, 0, life_ << kLifeShift};
  return c;
}

/// Stamps have no room for more barriers: what happened before counts as ordered from now on.
void GroupShadow::forget_accesses(u32 now) {
  for (GroupCell& c : cells_) c.write = c.read = 0;
  base_ = now;
}

bool GroupShadow::uninitialised(std::size_t offset, std::size_t bytes) const {
  for (std::size_t i = offset / 2; i * 2 < offset + bytes && i < cells_.size(); ++i) {
    const u32 mask = covered(i, offset, bytes);
    const u32 state = cells_[i].state;
    if (state >> kLifeShift != life_ || (state & mask) != mask) return true;
  }
  return false;
}

Conflict GroupShadow::access(std::size_t offset, std::size_t bytes, bool write, bool atomic,
                             const Accessor& accessor) {
  if (accessor.stamp - base_ > kLastGroupStamp) forget_accesses(accessor.stamp);
  Accessor a = accessor;
  a.stamp = stamp(accessor.stamp);
  a.group_ordered = stamp(accessor.group_ordered);
  a.simd_ordered = stamp(accessor.simd_ordered);
  Conflict found = Conflict::none;
  for (std::size_t i = offset / 2; i * 2 < offset + bytes && i < cells_.size(); ++i) {
    GroupCell& c = cell(i);
    const u32 mask = covered(i, offset, bytes);
    const bool both_atomic = atomic && (c.state & kAtomic) != 0;
    if (found == Conflict::none && !both_atomic && unordered(c.write, mask, a)) {
      found = write ? Conflict::write_after_write : Conflict::read_after_write;
    }
    if (found == Conflict::none && write && !both_atomic && unordered(c.read, mask, a)) {
      found = Conflict::write_after_read;
    }
    if (write) {
      c.write = group_word(a.thread, mask, a.stamp);
      c.state = (c.state & ~kAtomic) | (mask & kWritten) | (atomic ? kAtomic : 0u);
    } else if (!atomic) {
      c.read = merged_reader(c.read, mask, a);
    }
  }
  return found;
}

Conflict device_access(DeviceShadow& shadow, const std::byte* at, std::size_t bytes, bool write,
                       bool atomic, const Accessor& a) {
  constexpr auto relaxed = std::memory_order_relaxed;
  Conflict found = Conflict::none;
  const auto offset = static_cast<std::size_t>(at - shadow.begin);
  for (std::size_t c = offset / 2; c * 2 < offset + bytes; ++c) {
    DeviceCell& cell = shadow.cells[c];
    const u32 mask = covered(c, offset, bytes);
    const u64 wrote = cell.write.load(relaxed);
    const bool both_atomic = atomic && (wrote >> 14 & 1) != 0;
    if (found == Conflict::none && !both_atomic && device_unordered(wrote, mask, a)) {
      found = write ? Conflict::write_after_write : Conflict::read_after_write;
    }
    const u64 read = cell.read.load(relaxed);
    if (found == Conflict::none && write && device_unordered(read, mask, a)) {
      found = Conflict::write_after_read;
    }
    if (write) {
      cell.write.store(device_word(a.thread, mask, atomic, a), relaxed);
    } else if (!atomic) {
      cell.read.store(device_reader(read, mask, a), relaxed);
    }
  }
  return found;
}

}  // namespace softmetal::exec
