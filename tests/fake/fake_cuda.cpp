// A CUDA driver and NVRTC without a GPU: device memory is host memory, a kernel is a function of
// the test. Enough of both for the host code of src/cuda to run: errors, missing parts, copies.
#include "fake_cuda.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#define FAKE extern "C" __attribute__((visibility("default")))

namespace {

FakeCuda state;
std::mutex mutex;
std::map<std::uintptr_t, std::pair<std::size_t, int>> memory;  // of the GPU: bytes, device

int result_of(const char* function) {
  return std::strcmp(state.failing, function) == 0 ? state.failure : 0;
}

/// Null where there is no memory.
void* allocate(std::size_t bytes, int device) {
  void* const block = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (block == nullptr) return nullptr;
  const std::lock_guard lock(mutex);
  try {
    memory[reinterpret_cast<std::uintptr_t>(block)] = {bytes, device};
  } catch (const std::bad_alloc&) {
    std::free(block);
    return nullptr;
  }
  return block;
}

void release(void* block) {
  const std::lock_guard lock(mutex);
  memory.erase(reinterpret_cast<std::uintptr_t>(block));
  std::free(block);
}

using Any = void*;
int some_object;

}  // namespace

FAKE FakeCuda* fake_cuda() { return &state; }
FAKE void* fake_device_memory(std::size_t bytes, int device) { return allocate(bytes, device); }
FAKE void fake_device_free(void* block) { release(block); }

// ---- devices ----
FAKE int cuInit(unsigned) { return result_of("cuInit"); }
FAKE int cuDriverGetVersion(int* version) { return *version = state.version, 0; }
FAKE int cuGetErrorName(int result, const char** name) {
  return *name = result == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_LAUNCH_FAILED", 0;
}
FAKE int cuGetErrorString(int result, const char** text) {
  return *text = result == 2 ? "out of memory" : "unspecified launch failure", 0;
}
FAKE int cuDeviceGetCount(int* count) { return *count = state.devices, 0; }
FAKE int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
FAKE int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, static_cast<std::size_t>(size), "Fake GPU"), 0;
}
FAKE int cuDeviceTotalMem_v2(std::size_t* bytes, int) { return *bytes = std::size_t{80} << 30, 0; }
FAKE int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 16   ? 132
           : attribute == 75 ? state.compute_capability / 10
           : attribute == 76 ? state.compute_capability % 10
                             : 232448;
  return 0;
}
FAKE int cuDevicePrimaryCtxRetain(Any* context, int) { return *context = &some_object, 0; }
FAKE int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
FAKE int cuCtxPushCurrent_v2(Any) { return ++state.contexts_pushed, 0; }
FAKE int cuCtxPopCurrent_v2(Any*) { return --state.contexts_pushed, 0; }
FAKE int cuCtxGetDevice(int*) { return 201; }  // no context is current

// ---- kernels ----
FAKE int cuLibraryLoadData(Any* library, const void*, int*, void**, unsigned, int*, void**,
                           unsigned) {
  ++state.loads;
  *library = &some_object;
  return result_of("cuLibraryLoadData");
}
FAKE int cuLibraryUnload(Any) { return 0; }
FAKE int cuLibraryGetKernel(Any* kernel, Any, const char*) { return *kernel = &some_object, 0; }
FAKE int cuKernelGetFunction(Any* function, Any) { return *function = &some_object, 0; }
FAKE int cuKernelSetAttribute(int, int, Any, int) { return result_of("cuKernelSetAttribute"); }
FAKE int cuLaunchKernelEx(const void* config, Any, void** arguments, void**) {
  struct Config {
    unsigned grid[3], block[3], shared;
    void* stream;
    const unsigned* attributes;
    unsigned attribute_count;
  };
  const auto& launch = *static_cast<const Config*>(config);
  state.last_grid = launch.grid[0];
  state.last_block = launch.block[0];
  state.last_cluster = launch.attribute_count > 0 ? launch.attributes[2] : 1;
  ++state.launches;
  const int result = result_of("cuLaunchKernelEx");
  if (result == 0 && state.kernel != nullptr) state.kernel(arguments);
  return result;
}
FAKE int cuTensorMapEncodeTiled(void* map, int, std::uint32_t, void*, const std::uint64_t*,
                                const std::uint64_t*, const std::uint32_t*, const std::uint32_t*,
                                int, int, int, int) {
  std::memset(map, 0, 128);
  return state.rejects_tensor_maps ? 1 : 0;
}

// ---- memory ----
FAKE int cuPointerGetAttributes(unsigned, int*, void** values, std::uint64_t address) {
  const std::lock_guard lock(mutex);
  *static_cast<unsigned*>(values[0]) = 0;
  auto block = memory.upper_bound(address);
  if (block == memory.begin()) return 0;
  --block;
  if (address >= block->first + block->second.first) return 0;
  *static_cast<unsigned*>(values[0]) = 2;
  *static_cast<int*>(values[1]) = block->second.second;
  return 0;
}
FAKE int cuMemPoolCreate(Any* pool, const void*) { return *pool = &some_object, 0; }
FAKE int cuMemPoolDestroy(Any) { return 0; }
FAKE int cuMemPoolSetAttribute(Any, int, void*) { return 0; }
FAKE int cuMemAllocFromPoolAsync(std::uint64_t* address, std::size_t bytes, Any, Any) {
  if (const int result = result_of("cuMemAllocFromPoolAsync")) return result;
  ++state.allocations;
  *address = reinterpret_cast<std::uint64_t>(allocate(bytes, 0));
  if (*address == 0) return --state.allocations, 2;  // CUDA_ERROR_OUT_OF_MEMORY
  return 0;
}
FAKE int cuMemHostAlloc(void** address, std::size_t bytes, unsigned) {
  *address = std::calloc(1, bytes);
  return *address == nullptr ? 2 : 0;
}
FAKE int cuMemFreeHost(void* address) { return std::free(address), 0; }
FAKE int cuMemsetD32Async(std::uintptr_t address, unsigned value, std::size_t count, Any) {
  std::fill_n(reinterpret_cast<unsigned*>(address), count, value);
  return 0;
}
FAKE int cuMemFreeAsync(std::uint64_t address, Any) {
  ++state.frees;
  release(reinterpret_cast<void*>(address));
  return 0;
}
FAKE int cuCtxSetCurrent(Any) { return 0; }
FAKE int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) {
  *address = reinterpret_cast<std::uint64_t>(allocate(bytes, 0));
  return *address == 0 ? 2 : 0;
}
FAKE int cuMemFree_v2(std::uint64_t address) {
  return release(reinterpret_cast<void*>(address)), 0;
}
FAKE int cuMemcpyHtoD_v2(std::uint64_t to, const void* from, std::size_t bytes) {
  return std::memcpy(reinterpret_cast<void*>(to), from, bytes), 0;
}
FAKE int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void* from, std::size_t bytes, Any) {
  if (const int result = result_of("cuMemcpyHtoDAsync_v2")) return result;
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
FAKE int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t bytes, Any) {
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}

// ---- streams and events ----
FAKE int cuStreamCreate(Any* stream, unsigned) { return *stream = &some_object, 0; }
FAKE int cuStreamDestroy_v2(Any) { return 0; }
FAKE int cuStreamSynchronize(Any) { return result_of("cuStreamSynchronize"); }
FAKE int cuStreamIsCapturing(Any, int* status) { return *status = state.capturing ? 1 : 0, 0; }
FAKE int cuStreamGetId(Any stream, unsigned long long* id) {
  return *id = reinterpret_cast<std::uintptr_t>(stream), 0;
}
FAKE int cuThreadExchangeStreamCaptureMode(int*) { return 0; }
FAKE int cuEventCreate(Any* event, unsigned) { return *event = &some_object, 0; }
FAKE int cuEventDestroy_v2(Any) { return 0; }
FAKE int cuEventRecord(Any, Any) { return 0; }
FAKE int cuEventQuery(Any) { return result_of("cuEventQuery"); }
FAKE int cuEventSynchronize(Any) { return result_of("cuEventSynchronize"); }
FAKE int cuEventElapsedTime(float* milliseconds, Any, Any) { return *milliseconds = 2.0F, 0; }

// ---- NVRTC ----
FAKE int nvrtcVersion(int* major, int* minor) {
  return *major = 13, *minor = state.compiler_minor, 0;
}
FAKE const char* nvrtcGetErrorString(int) { return "NVRTC_ERROR_COMPILATION"; }
FAKE int nvrtcCreateProgram(Any* program, const char*, const char*, int, const char* const*,
                            const char* const*) {
  return *program = &some_object, 0;
}
FAKE int nvrtcDestroyProgram(Any*) { return 0; }
FAKE int nvrtcCompileProgram(Any, int, const char* const*) {
  ++state.compilations;
  return state.compile_log == nullptr ? 0 : 6;
}
FAKE int nvrtcGetCUBINSize(Any, std::size_t* size) { return *size = 5, 0; }
FAKE int nvrtcGetCUBIN(Any, char* cubin) { return std::memcpy(cubin, "cubin", 5), 0; }
FAKE int nvrtcGetProgramLogSize(Any, std::size_t* size) {
  return *size = std::strlen(state.compile_log == nullptr ? "" : state.compile_log) + 1, 0;
}
FAKE int nvrtcGetProgramLog(Any, char* log) {
  return std::strcpy(log, state.compile_log == nullptr ? "" : state.compile_log), 0;
}
