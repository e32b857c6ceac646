// Asynchronous copies: boxes of a tensor, contiguous bytes, cp.async. Without lazy mode they happen
// at once; with it, as late as they may.
#include <algorithm>
#include <cstring>

#include "exec/memory.hpp"
#include "exec/tensor_map.hpp"
#include "exec/worker.hpp"

namespace softcuda {
namespace {

/// A box of a tensor, and where it lies in a block's shared memory.
class Box {
 public:
  Box(Fiber* self, u64 map, const BoxAt& at, const char* action)
      : self_(self), at_(at), action_(action) {
    if (map % 64 != 0) fail("the tensor map must be aligned to 64 bytes");
    std::memcpy(&map_, reinterpret_cast<const void*>(map), sizeof map_);
    if (map_.magic != TensorMapFields::right) fail("the tensor map was not encoded");
    if (map_.rank != 5) fail("the tensor map is of rank " + std::to_string(map_.rank));
    row_bytes_ = static_cast<u32>(map_.box[0]) * map_.element_bytes;
  }

  u32 bytes() const { return row_bytes_ * map_.box[1] * map_.box[2] * map_.box[3] * map_.box[4]; }

  /// Checks that what lies inside of the tensor is memory of the device.
  void check_memory() const {
    u64 first = map_.base, last = map_.base;
    for (int i = 0; i < 5; ++i) {
      const std::int64_t size = map_.sizes[i];
      const std::int64_t begin = std::max<std::int64_t>(at_.x[i], 0);
      const std::int64_t end = std::min<std::int64_t>(std::int64_t{at_.x[i]} + map_.box[i], size);
      if (begin >= end) return;
      first += static_cast<u64>(begin) * map_.strides[i];
      last += static_cast<u64>(end - 1) * map_.strides[i];
    }
    if (!is_device_memory(first, last - first + map_.element_bytes)) {
      fail("the box lies outside of the device's memory");
    }
  }

  void load(u8* window, u32 to) const {
    each_row([&](u32 row, const u8* from, u32 skip, u32 count) {
      alignas(16) u8 line[256] = {};  // what lies outside is zero
      if (from != nullptr) std::memcpy(line + skip, from, count);
      for (u32 i = 0; i < row_bytes_; i += 16) {
        std::memcpy(window + swizzled(to + row * row_bytes_ + i), line + i, 16);
      }
    });
  }

  void store(const u8* window, u32 at) const {
    each_row([&](u32 row, u8* to, u32 skip, u32 count) {
      if (to == nullptr) return;
      alignas(16) u8 line[256];
      for (u32 i = 0; i < row_bytes_; i += 16) {
        std::memcpy(line + i, window + swizzled(at + row * row_bytes_ + i), 16);
      }
      std::memcpy(to, line + skip, count);
    });
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    self_->worker->fail(self_, std::string(action_) + ": " + what);
  }

  /// Bits of the address that tell rows of 128 bytes apart choose the place of 16 bytes in the row.
  u32 swizzled(u32 address) const {
    const u32 bits = map_.swizzle == swizzle_128  ? 7
                     : map_.swizzle == swizzle_64 ? 3
                     : map_.swizzle == swizzle_32 ? 1
                                                  : 0;
    return address ^ (address >> 7 & bits) << 4;
  }

  /// f(row, memory of its first element inside, bytes of the row before that, bytes inside); null
  /// for a row that lies outside.
  template <class F>
  void each_row(F&& f) const {
    const std::int64_t first = std::max<std::int64_t>(-std::int64_t{at_.x[0]}, 0);
    const std::int64_t end =
        std::min<std::int64_t>(map_.box[0], std::int64_t{map_.sizes[0]} - at_.x[0]);
    u32 row = 0;
    for (int x4 = 0; x4 < map_.box[4]; ++x4) {
      for (int x3 = 0; x3 < map_.box[3]; ++x3) {
        for (int x2 = 0; x2 < map_.box[2]; ++x2) {
          for (int x1 = 0; x1 < map_.box[1]; ++x1, ++row) {
            const std::int64_t at[5] = {at_.x[0] + first, std::int64_t{at_.x[1]} + x1,
                                        std::int64_t{at_.x[2]} + x2, std::int64_t{at_.x[3]} + x3,
                                        std::int64_t{at_.x[4]} + x4};
            u64 address = map_.base;
            bool inside = first < end;
            for (int i = 0; i < 5; ++i) {
              inside = inside && at[i] >= 0 && at[i] < std::int64_t{map_.sizes[i]};
              address += static_cast<u64>(at[i]) * map_.strides[i];
            }
            f(row, inside ? reinterpret_cast<u8*>(address) : nullptr,
              static_cast<u32>(first) * map_.element_bytes,
              inside ? static_cast<u32>(end - first) * map_.element_bytes : 0);
          }
        }
      }
    }
  }

  Fiber* self_;
  BoxAt at_;
  const char* action_;
  TensorMapFields map_;
  u32 row_bytes_ = 0;
};

/// The same place in another block of the cluster.
Place in_block(const Place& place, Block* block) { return {block, place.offset}; }

void do_copy(const Copy& x) {
  std::memcpy(x.to, reinterpret_cast<const void*>(x.from), x.bytes);
  std::memset(x.to + x.bytes, 0, x.size - x.bytes);
}

/// Now, or when nothing else can happen.
void do_or_defer(Worker& worker, std::function<void()> operation) {
  if (worker.launch().lazy_copies) {
    worker.defer(std::move(operation));
  } else {
    operation();
  }
}

}  // namespace

void tensor_load(Thread* thread, u32 to, u64 map, const BoxAt& at, u32 barrier, u32 mask) {
  Fiber* const self = fiber_of(thread);
  Worker& worker = *self->worker;
  const Box box(self, map, at, "tensor load");
  box.check_memory();
  const u32 bytes = box.bytes();
  const Place place = worker.place(self, to, bytes, 128),
              signal = worker.place(self, barrier, 8, 8);
  if (mask == 0) mask = 1u << place.block->rank;
  if (mask >> worker.blocks().size() != 0) {
    worker.fail(self, "tensor load: the cluster has no such block as mask " + std::to_string(mask));
  }
  for (Block* block : worker.blocks()) {
    if ((mask >> block->rank & 1) == 0) continue;
    if (block->alive == 0) worker.fail(self, "tensor load: to a block that has ended");
    do_or_defer(worker, [=, &worker] {
      box.load(block->window, place.offset);
      mbarrier_complete(worker, self, in_block(signal, block), bytes);
    });
  }
}

void tensor_store(Thread* thread, u64 map, const BoxAt& at, u32 from) {
  Fiber* const self = fiber_of(thread);
  const Box box(self, map, at, "tensor store");
  box.check_memory();
  const Place place = self->worker->place(self, from, box.bytes(), 128);
  if (self->worker->launch().lazy_copies) {
    self->stores.operations.push_back([=] { box.store(place.block->window, place.offset); });
  } else {
    box.store(place.block->window, place.offset);
  }
}

void bulk_load(Thread* thread, u32 to, u64 from, u32 bytes, u32 barrier) {
  Fiber* const self = fiber_of(thread);
  Worker& worker = *self->worker;
  const Place place = worker.place(self, to, bytes, 16), signal = worker.place(self, barrier, 8, 8);
  if (bytes % 16 != 0 || from % 16 != 0) {
    worker.fail(self, "cp.async.bulk: size and address must be multiples of 16 bytes");
  }
  if (!is_device_memory(from, bytes)) {
    worker.fail(self, "cp.async.bulk: reads outside of the device's memory");
  }
  do_or_defer(worker, [=, &worker] {
    std::memcpy(place.data(), reinterpret_cast<const void*>(from), bytes);
    mbarrier_complete(worker, self, signal, bytes);
  });
}

void bulk_commit(Thread* thread) { fiber_of(thread)->stores.commit(); }

void bulk_wait(Thread* thread, u32 groups, bool) {
  auto& stores = fiber_of(thread)->stores;
  const std::size_t due = stores.due(groups);
  for (std::size_t i = 0; i < due; ++i) stores.operations[i]();
  stores.drop(due);
}

void copy(Thread* thread, u32 to, u64 from, u32 size, u32 bytes) {
  Fiber* const self = fiber_of(thread);
  const Place place = self->worker->place(self, to, size, size);
  if (bytes > size || (bytes != 0 && from % size != 0)) {
    self->worker->fail(self, "cp.async: " + std::to_string(bytes) + " of " + std::to_string(size) +
                                 " bytes from address " + std::to_string(from));
  }
  if (bytes != 0 && !is_device_memory(from, bytes)) {
    self->worker->fail(self, "cp.async: reads outside of the device's memory");
  }
  const Copy copy{place.data(), from, size, bytes};
  if (self->worker->launch().lazy_copies) {
    self->copies.operations.push_back(copy);
  } else {
    do_copy(copy);
  }
}

void copy_commit(Thread* thread) {
  Fiber* const self = fiber_of(thread);
  if (self->worker->launch().lazy_copies) self->copies.commit();
}

void copy_wait(Thread* thread, u32 groups) {
  auto& copies = fiber_of(thread)->copies;
  const std::size_t due = copies.due(groups);
  for (std::size_t i = 0; i < due; ++i) do_copy(copies.operations[i]);
  copies.drop(due);
}

}  // namespace softcuda
