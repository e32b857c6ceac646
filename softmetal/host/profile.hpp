// The devices that softmetal can play.
#pragma once

#include <cstdint>
#include <string>

namespace softmetal {

struct Profile {
  const char* key;           // for SOFTMETAL_DEVICE
  const char* name;          // MTLDevice.name
  const char* architecture;  // MTLArchitecture.name
  int apple_family;          // 7 for MTLGPUFamilyApple7
  unsigned cores;
  std::uint64_t memory_gib;  // of a common configuration

  std::uint64_t working_set() const;  // recommendedMaxWorkingSetSize
  std::uint64_t max_buffer() const;   // maxBufferLength
};

inline constexpr std::uint64_t max_threadgroup_bytes = 32768;
inline constexpr std::uint64_t max_threads_per_threadgroup = 1024;
inline constexpr std::uint64_t max_set_bytes = 4096;
inline constexpr std::uint64_t page_bytes = 16384;

// The profile that SOFTMETAL_DEVICE names; "m1" by default. An unknown name ends the program.
const Profile& profile();

}  // namespace softmetal
