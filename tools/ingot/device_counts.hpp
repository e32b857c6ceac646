// What a run did on a device in software: operations and bytes instead of times.
#pragma once

#include <cstdint>
#include <ingot/ingot.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "workload.hpp"

namespace ingot::cli {

/// Of one run of a workload. Bytes are 0 where the device runs without checks.
struct DeviceCounts {
  std::uint64_t dispatches = 0, threadgroups = 0, matrix_operations = 0;
  std::uint64_t barriers = 0, simd_operations = 0, special_operations = 0;
  std::uint64_t device_bytes_read = 0, device_bytes_written = 0, threadgroup_bytes = 0;
};

/// Does this device count rather than compute in time? True for metal on softmetal.
bool counts_instead_of_timing(const std::string& device);

/// 8x8x8 matrix operations that the pass needs at least, edges of tiles not counted: 2 (forward) or
/// 7 (backward: S and dP in both kernels) products a pair.
double least_matrix_operations(const Workload& workload);

struct CountedRow {
  Workload workload;
  DeviceCounts counts;
};

/// One run of each. The plan is made for `device`.
CountedRow count(const Plan& plan, const Workload& workload);

/// Small problems, so that a device in software ends within minutes.
std::vector<Workload> counting_workloads();

std::string table_text(const std::vector<CountedRow>& rows);
nlohmann::json to_json(const std::vector<CountedRow>& rows);

}  // namespace ingot::cli
