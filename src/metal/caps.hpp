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

/// A version of the Metal Shading Language.
struct Language {
  int major = 3;
  int minor = 0;

  bool operator==(const Language&) const = default;
};

constexpr int oldest_macos = 13;     ///< the first with Metal 3.0
constexpr int macos_of_bfloat = 14;  ///< Metal 3.1 has the type

/// The newest language of a macOS: what its compiler is written and tested for. Kernels use nothing
/// newer than 3.0, or, where bfloat is in their Config, 3.1.
Language language_of(const DeviceCaps& caps);

/// GPU cores of a chip by its name ("Apple M3 Max": 40), the full configuration; 0 where unknown.
int cores_of(const std::string& chip);

/// One device of every kind that the tuning tables know.
std::vector<DeviceCaps> known_devices();

}  // namespace ingot::metal
