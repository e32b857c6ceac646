// What this processor is: instruction set and caches.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/caps.cpp"
#include <hwy/foreach_target.h>

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
std::int64_t lanes_of_target() { return kLanes; }
std::int64_t this_target() { return HWY_TARGET; }
}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "cpu/cpu_plan.hpp"

#if defined(__linux__)
#include <unistd.h>
#endif

namespace ingot {
namespace {

HWY_EXPORT(lanes_of_target);
HWY_EXPORT(this_target);

}  // namespace

std::int64_t simd_lanes() { return HWY_DYNAMIC_DISPATCH(lanes_of_target)(); }

std::string_view instruction_set(std::int64_t target) {
#if HWY_ARCH_X86
  if (target == HWY_AVX3) return "AVX-512";
  if (target == HWY_AVX2) return "AVX2";
#elif HWY_ARCH_ARM
  if (target != HWY_EMU128 && target != HWY_SCALAR) return "NEON";
#endif
  return "portable";
}

CpuCaps detect_cpu(int threads) {
  CpuCaps caps;
  caps.threads = threads;
  caps.target = instruction_set(HWY_DYNAMIC_DISPATCH(this_target)());
  caps.lanes = simd_lanes();
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l1 > 0) caps.l1_bytes = static_cast<std::size_t>(l1);
  if (l2 > 0) caps.l2_bytes = static_cast<std::size_t>(l2);
#endif
  return caps;
}

}  // namespace ingot
#endif
