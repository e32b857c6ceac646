// Bounds, initialisation and race checks of instrumented kernels. Buffers reach a kernel as encoded
// addresses, slot number above and offset below, so an access knows which buffer it was meant for.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../msl/library.hpp"
#include "../stdlib/softmetal_abi.h"
#include "lazy_array.hpp"
#include "uses.hpp"

namespace softmetal::exec {

using softmetal_abi::u32;
using softmetal_abi::u64;

/// Slots 0..30 are buffers, then dynamic threadgroup memory.
inline constexpr u32 kThreadgroupTag = 32;
inline constexpr u32 kTagCount = 64;
inline constexpr u64 kTagBias = u64{1} << 46;

inline u64 encode_address(u32 slot, u64 low_bits) {
  return (u64{slot + 1} << 48) + kTagBias + low_bits;
}

/// The state of two bytes of device memory in one dispatch: who wrote and who read last.
struct DeviceCell {
  std::atomic<u64> write{0};
  std::atomic<u64> read{0};
};

/// Shadow of one range of host memory; bindings that overlap share one.
struct DeviceShadow {
  DeviceShadow(const std::byte* first, std::size_t size) : begin(first), cells(size / 2 + 1) {}
  const std::byte* begin;
  LazyArray<DeviceCell, 2048> cells;
};

/// What a dispatch binds, the same for all workers.
struct MemoryMap {
  struct Slot {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    bool writable = true;
    std::string label;
    DeviceShadow* shadow = nullptr;
    std::shared_ptr<TouchMap> touched = nullptr;  // with ExecOptions::uses
    std::size_t start = 0;                        // where the kernel's argument points to
  };
  std::array<Slot, kTagCount> slots;  // of threadgroup slots only `bytes`
  std::vector<Slot> resident;
  std::vector<std::unique_ptr<DeviceShadow>> shadows;

  /// Merges overlapping bindings and gives those that somebody may write a shadow.
  void build_shadows();
};

/// The state of two bytes of threadgroup memory, in the life of one threadgroup.
struct GroupCell {
  u32 write = 0, read = 0;  // thread + 1 in 12 bits (0: nobody), byte mask in 2, stamp above
  u32 state = 0;            // bytes ever written in 2 bits, last write was atomic, life above
};

/// Who accesses, and since when what other threads did is ordered before.
struct Accessor {
  u32 thread = 0;         // in the threadgroup
  u32 group = 0;          // of the grid
  u32 stamp = 0;          // now: barriers passed so far in this threadgroup
  u32 group_ordered = 0;  // stamps below are ordered with every thread of the threadgroup
  u32 simd_ordered = 0;   // and with those of the own simdgroup
};

enum class Conflict { none, read_after_write, write_after_read, write_after_write };

/// Threadgroup memory of the group a worker runs.
class __attribute__((visibility("hidden"))) GroupShadow {
 public:
  /// A new threadgroup begins: nothing is written, nobody has accessed anything.
  void reset(std::size_t bytes);
  /// True when some byte was never written.
  bool uninitialised(std::size_t offset, std::size_t bytes) const;
  Conflict access(std::size_t offset, std::size_t bytes, bool write, bool atomic,
                  const Accessor& a);

 private:
  GroupCell& cell(std::size_t index);
  void forget_accesses(u32 now);
  u32 stamp(u32 time) const { return time > base_ ? time - base_ : 0; }

  std::vector<GroupCell> cells_;
  u32 life_ = 0;
  u32 base_ = 0;  // the time that stamps count from
};

/// Stamps from here on are not told apart; a threadgroup with so many barriers is not checked on.
inline constexpr u32 kLastDeviceStamp = (1u << 25) - 2;

Conflict device_access(DeviceShadow& shadow, const std::byte* at, std::size_t bytes, bool write,
                       bool atomic, const Accessor& a);

const char* conflict_text(Conflict conflict);

}  // namespace softmetal::exec
