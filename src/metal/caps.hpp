// What a plan needs to know of a Metal device. Plain numbers: plans are made and tested without
// one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ingot::metal {

struct DeviceCaps {
  std::string chip = "Apple M1";  ///< as the system names it
  int family = 7;                 ///< Apple GPU family: 7 (M1), 8 (M2), 9 (M3, M4), 10 (M5)
  int cores = 0;                  ///< 0: not known
  std::int64_t max_threadgroup_bytes = 32768;
  int os_major = 14;  ///< macOS
  int os_minor = 0;

  bool operator==(const DeviceCaps&) const = default;
};

/// GPU cores of a chip by its name ("Apple M3 Max": 40), the full configuration; 0 where unknown.
int cores_of(const std::string& chip);

/// One device of every kind that the tuning tables know.
std::vector<DeviceCaps> known_devices();

}  // namespace ingot::metal
