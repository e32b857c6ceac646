// Plans for Metal devices: pure functions of the problem and the device's properties.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "core/plan.hpp"
#include "metal/caps.hpp"
#include "metal/config.hpp"

namespace ingot::metal {

/// One kernel of a pass. Its Config is for tensors of the plainest layout; specialise() adapts it.
struct Launch {
  Config config;
  std::array<std::int64_t, 3> grid{1, 1, 1};
  std::int64_t threads = 0;
  std::int64_t threadgroup_bytes = 0;
};

struct ForwardDetail : PassDetail {
  Launch main;
  std::optional<Launch> combine;  ///< of the partial results, where the keys are split
  std::int64_t splits = 1;
  std::int64_t split_length = 0;    ///< keys of a split
  std::int64_t row_blocks = 1;      ///< of the rows that share keys
  std::size_t partial_sums_at = 0;  ///< offset in the workspace; partial_o begins it
};

struct BackwardDetail : PassDetail {
  Launch delta, dq, dkv;
  std::optional<Launch> dbias, dsinks;  ///< where there is a bias, where there are sinks
};

/// Throws Error(unsupported) where the device cannot run the problem, and says why.
Plan plan_metal(const Problem& problem, const DeviceCaps& caps, const std::string& device_name);

}  // namespace ingot::metal
