// The device's memory: the host's, filled with NaN when it is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace softcuda {

/// Null if there is none left.
void* allocate_device(std::size_t bytes, int device);
/// False if no allocation starts there.
bool free_device(void* memory);
/// The device whose memory an address lies in.
std::optional<int> device_of(std::uint64_t address);
/// Whether all of the bytes lie in one allocation.
bool is_device_memory(std::uint64_t address, std::uint64_t bytes);

}  // namespace softcuda
