// Memory, pools, copies.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "driver/objects.hpp"
#include "exec/memory.hpp"

using softcuda::Stream;
using Address = std::uint64_t;

namespace {

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

int allocate(Address* address, std::size_t bytes) {
  if (bytes == 0) return softcuda::invalid_value;
  void* const memory = softcuda::allocate_device(bytes, 0);
  if (memory == nullptr) return softcuda::out_of_memory;
  *address = reinterpret_cast<Address>(memory);
  return softcuda::success;
}

int release(Address address) {
  return softcuda::free_device(pointer(address)) ? softcuda::success : softcuda::invalid_value;
}

int the_pool;

/// Copies and fills stay inside of the device's memory.
bool is_inside(Address address, std::size_t bytes) {
  return bytes == 0 || softcuda::is_device_memory(address, bytes);
}

}  // namespace

CUDA_API int cuPointerGetAttributes(unsigned count, int* attributes, void** values,
                                    Address address) {
  const auto device = softcuda::device_of(address);
  for (unsigned i = 0; i < count; ++i) {
    if (attributes[i] == 2) {
      *static_cast<unsigned*>(values[i]) = device ? 2 : 0;
    } else if (attributes[i] == 9) {
      *static_cast<int*>(values[i]) = device.value_or(-2);
    } else {
      return softcuda::invalid_value;
    }
  }
  return softcuda::success;
}

CUDA_API int cuMemPoolCreate(void** pool, const void*) {
  *pool = &the_pool;
  return softcuda::success;
}
CUDA_API int cuMemPoolDestroy(void*) { return softcuda::success; }
CUDA_API int cuMemPoolSetAttribute(void*, int, void*) { return softcuda::success; }

CUDA_API int cuMemAllocFromPoolAsync(Address* address, std::size_t bytes, void*, Stream*) {
  return allocate(address, bytes);
}
// What a graph has allocated stays, so that it can be launched again.
CUDA_API int cuMemFreeAsync(Address address, Stream* stream) {
  return softcuda::stream_of(stream).capture != nullptr ? softcuda::success : release(address);
}
CUDA_API int cuMemAlloc_v2(Address* address, std::size_t bytes) { return allocate(address, bytes); }
CUDA_API int cuMemFree_v2(Address address) { return release(address); }

CUDA_API int cuMemHostAlloc(void** address, std::size_t bytes, unsigned) {
  *address = std::calloc(1, bytes);
  return *address == nullptr ? softcuda::out_of_memory : softcuda::success;
}
CUDA_API int cuMemFreeHost(void* address) {
  std::free(address);
  return softcuda::success;
}

CUDA_API int cuMemsetD32Async(Address address, unsigned value, std::size_t count, Stream* stream) {
  if (!is_inside(address, 4 * count) || address % 4 != 0) return softcuda::invalid_value;
  return softcuda::submit(stream, [=] {
    std::fill_n(static_cast<unsigned*>(pointer(address)), count, value);
    return softcuda::success;
  });
}
CUDA_API int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, Stream* stream) {
  if (!is_inside(to, bytes)) return softcuda::invalid_value;
  return softcuda::submit(stream, [=] {
    std::memcpy(pointer(to), from, bytes);
    return softcuda::success;
  });
}
CUDA_API int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, Stream* stream) {
  if (!is_inside(from, bytes)) return softcuda::invalid_value;
  return softcuda::submit(stream, [=] {
    std::memcpy(to, pointer(from), bytes);
    return softcuda::success;
  });
}
CUDA_API int cuMemcpyHtoD_v2(Address to, const void* from, std::size_t bytes) {
  return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
}
CUDA_API int cuMemcpyDtoH_v2(void* to, Address from, std::size_t bytes) {
  return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
}
