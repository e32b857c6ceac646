// The CUDA driver, opened at run time: one build serves machines with and without it, and needs no
// toolkit. Only what is used is declared; names of functions are the driver's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace ingot::cuda {

using Result = int;                   // CUresult
using DeviceHandle = int;             // CUdevice
using DeviceAddress = std::uint64_t;  // CUdeviceptr
using ContextHandle = struct CUctx_st*;
using StreamHandle = struct CUstream_st*;
using EventHandle = struct CUevent_st*;
using LibraryHandle = struct CUlib_st*;
using KernelHandle = struct CUkern_st*;
using FunctionHandle = struct CUfunc_st*;
using PoolHandle = struct CUmemPoolHandle_st*;

/// CUtensorMap.
struct alignas(64) TensorMap {
  std::uint64_t opaque[16];
};

/// CUlaunchAttribute; the value is a union of 64 bytes, of which the cluster and two flags are
/// used.
struct LaunchAttribute {
  enum Id : std::uint32_t { cluster_dimension = 4, programmatic_stream_serialization = 6 };
  std::uint32_t id;
  std::uint32_t padding;
  std::uint32_t value[16];
};

/// CUlaunchConfig.
struct LaunchConfig {
  unsigned grid[3];
  unsigned block[3];
  unsigned shared_bytes;
  StreamHandle stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

/// CUmemPoolProps of a pool of plain device memory.
struct PoolProperties {
  std::uint32_t allocation_type = 1;  // pinned
  std::uint32_t handle_types = 0;
  std::uint32_t location_type = 1;  // device
  std::int32_t device = 0;
  void* security = nullptr;
  std::size_t max_size = 0;
  std::uint16_t usage = 0;
  std::uint8_t reserved[54] = {};
};

/// Values of the driver's enumerations.
namespace code {
inline constexpr Result success = 0, invalid_value = 1, out_of_memory = 2, no_device = 100,
                        not_ready = 600;
}
namespace attribute {
inline constexpr int multiprocessors = 16, compute_major = 75, compute_minor = 76,
                     shared_bytes_per_block = 97;          // of a device
inline constexpr int max_dynamic_shared_bytes = 8;         // of a function
inline constexpr int memory_type = 2, device_ordinal = 9;  // of a pointer
inline constexpr int release_threshold = 4;                // of a pool
inline constexpr unsigned memory_type_device = 2;
}  // namespace attribute
inline constexpr unsigned event_with_time = 0, stream_non_blocking = 1;
inline constexpr unsigned host_memory_portable = 1, host_memory_mapped = 2;
inline constexpr int capture_relaxed = 2;

/// The functions used, and the library they lie in.
struct Driver {
  Result (*cuInit)(unsigned);
  Result (*cuDriverGetVersion)(int*);
  Result (*cuGetErrorName)(Result, const char**);
  Result (*cuGetErrorString)(Result, const char**);
  Result (*cuDeviceGetCount)(int*);
  Result (*cuDeviceGet)(DeviceHandle*, int);
  Result (*cuDeviceGetName)(char*, int, DeviceHandle);
  Result (*cuDeviceTotalMem)(std::size_t*, DeviceHandle);
  Result (*cuDeviceGetAttribute)(int*, int, DeviceHandle);
  Result (*cuDevicePrimaryCtxRetain)(ContextHandle*, DeviceHandle);
  Result (*cuDevicePrimaryCtxRelease)(DeviceHandle);
  Result (*cuCtxPushCurrent)(ContextHandle);
  Result (*cuCtxPopCurrent)(ContextHandle*);
  Result (*cuCtxGetDevice)(DeviceHandle*);
  Result (*cuLibraryLoadData)(LibraryHandle*, const void*, int*, void**, unsigned, int*, void**,
                              unsigned);
  Result (*cuLibraryUnload)(LibraryHandle);
  Result (*cuLibraryGetKernel)(KernelHandle*, LibraryHandle, const char*);
  Result (*cuKernelGetFunction)(FunctionHandle*, KernelHandle);
  Result (*cuKernelSetAttribute)(int, int, KernelHandle, DeviceHandle);
  Result (*cuLaunchKernelEx)(const LaunchConfig*, FunctionHandle, void**, void**);
  Result (*cuTensorMapEncodeTiled)(TensorMap*, int, std::uint32_t, void*, const std::uint64_t*,
                                   const std::uint64_t*, const std::uint32_t*, const std::uint32_t*,
                                   int, int, int, int);
  Result (*cuPointerGetAttributes)(unsigned, int*, void**, DeviceAddress);
  Result (*cuMemPoolCreate)(PoolHandle*, const PoolProperties*);
  Result (*cuMemPoolDestroy)(PoolHandle);
  Result (*cuMemPoolSetAttribute)(PoolHandle, int, void*);
  Result (*cuMemAllocFromPoolAsync)(DeviceAddress*, std::size_t, PoolHandle, StreamHandle);
  Result (*cuMemFreeAsync)(DeviceAddress, StreamHandle);
  Result (*cuMemHostAlloc)(void**, std::size_t, unsigned);
  Result (*cuMemFreeHost)(void*);
  Result (*cuMemsetD32Async)(DeviceAddress, unsigned, std::size_t, StreamHandle);
  Result (*cuMemcpyHtoDAsync)(DeviceAddress, const void*, std::size_t, StreamHandle);
  Result (*cuMemcpyDtoHAsync)(void*, DeviceAddress, std::size_t, StreamHandle);
  Result (*cuStreamCreate)(StreamHandle*, unsigned);
  Result (*cuStreamDestroy)(StreamHandle);
  Result (*cuStreamSynchronize)(StreamHandle);
  Result (*cuStreamIsCapturing)(StreamHandle, int*);
  Result (*cuStreamGetId)(StreamHandle, unsigned long long*);
  Result (*cuThreadExchangeStreamCaptureMode)(int*);
  Result (*cuEventCreate)(EventHandle*, unsigned);
  Result (*cuEventDestroy)(EventHandle);
  Result (*cuEventRecord)(EventHandle, StreamHandle);
  Result (*cuEventQuery)(EventHandle);
  Result (*cuEventSynchronize)(EventHandle);
  Result (*cuEventElapsedTime)(float*, EventHandle, EventHandle);

  int version = 0;  ///< 13000 is CUDA 13.0

  /// Throws Error: out_of_memory, or device_error with the driver's name and text of the result.
  /// `action` says what failed, "launch of cuda/kernels/forward_sm90.cuh".
  void check(Result result, std::string_view action) const;
};

/// A driver, or why there is none: "libcuda.so.1 is not installed".
struct DriverResult {
  std::shared_ptr<const Driver> driver;
  std::string reason;
};

/// Opens the library that INGOT_LIBCUDA names, else libcuda.so.1, and initialises it. The library
/// stays open until the process ends: drivers do not survive being unloaded.
DriverResult open_driver();

}  // namespace ingot::cuda
