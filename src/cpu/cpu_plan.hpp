// How a problem runs on this processor: a pure function of the problem and the processor's fixed
// properties.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/plan.hpp"
#include "core/problem.hpp"

namespace ingot {

struct CpuCaps {
  int threads = 1;
  std::string_view target;                              ///< as instruction_set() names it
  std::int64_t lanes = 1;                               ///< f32 lanes of its vectors
  std::size_t l1_bytes = 32 << 10, l2_bytes = 1 << 20;  ///< caches of one core
};

/// Properties of the processor this runs on, with the best instruction set the library was built
/// for.
CpuCaps detect_cpu(int threads);

/// "AVX-512", "AVX2", "NEON" or "portable", from one of Highway's HWY_TARGETS.
std::string_view instruction_set(std::int64_t target);

/// f32 lanes of the instruction set that kernels run with.
std::int64_t simd_lanes();

/// Throws Error(unsupported) where a dtype is f64.
Plan plan_cpu(const Problem& problem, const CpuCaps& caps);

PassPlan plan_forward(const Problem& problem, const CpuCaps& caps);

}  // namespace ingot
