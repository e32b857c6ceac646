#include "metal/caps.hpp"

#include <string_view>
#include <utility>

namespace ingot::metal {
namespace {

struct Chip {
  std::string_view name;
  int family;
  int cores;
};

// Full configurations, as Apple states them; some are sold with a core or a few less.
constexpr Chip chips[] = {
    {"Apple M1", 7, 8},        {"Apple M1 Pro", 7, 16},   {"Apple M1 Max", 7, 32},
    {"Apple M1 Ultra", 7, 64}, {"Apple M2", 8, 10},       {"Apple M2 Pro", 8, 19},
    {"Apple M2 Max", 8, 38},   {"Apple M2 Ultra", 8, 76}, {"Apple M3", 9, 10},
    {"Apple M3 Pro", 9, 18},   {"Apple M3 Max", 9, 40},   {"Apple M3 Ultra", 9, 80},
    {"Apple M4", 9, 10},       {"Apple M4 Pro", 9, 20},   {"Apple M4 Max", 9, 40},
    {"Apple M5", 10, 10},      {"Apple M5 Max", 10, 40},
};

}  // namespace

Language language_of(const DeviceCaps& caps) {
  if (caps.os_major >= 26) return {4, 0};
  if (caps.os_major >= 15) return {3, 2};
  if (caps.os_major >= macos_of_bfloat) return {3, 1};
  return {3, 0};
}

int cores_of(const std::string& chip) {
  for (const Chip& known : chips) {
    if (known.name == chip) return known.cores;
  }
  return 0;
}

std::vector<DeviceCaps> known_devices() {
  std::vector<DeviceCaps> devices;
  for (const Chip& chip : chips) {
    DeviceCaps caps;
    caps.chip = chip.name;
    caps.family = chip.family;
    caps.cores = chip.cores;
    devices.push_back(std::move(caps));
  }
  return devices;
}

}  // namespace ingot::metal
