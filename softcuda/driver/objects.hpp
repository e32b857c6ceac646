// What the driver's handles point to, and what its functions share.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#define CUDA_API extern "C" __attribute__((visibility("default")))

namespace softcuda {

/// CUresult.
enum Result : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  invalid_device = 101,
  invalid_image = 200,
  invalid_context = 201,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  launch_failed = 719,
  capture_unsupported = 900,
};

/// The device that SOFTCUDA_DEVICE names.
struct DeviceModel {
  const char* name;
  int major, minor, multiprocessors, shared_bytes;
};
const DeviceModel& device_model();

/// What a stream records while it is captured; kernels with copies of their arguments.
struct Graph {
  std::vector<std::function<int()>> nodes;
};

struct Stream {
  std::uint64_t id = 0;
  Graph* capture = nullptr;
};
/// The one that a handle means; null is the default stream.
Stream& stream_of(Stream* handle);

/// Runs an operation of a stream, or records it. A kernel's fault is the result of its launch, and
/// of nothing behind it: tests that follow still say something.
int submit(Stream* stream, std::function<int()> operation);

struct Event {
  std::chrono::steady_clock::time_point time;
  bool is_recorded = false;
};

struct Library;

struct Kernel {
  Library* library = nullptr;
  std::string name;
  void (*entry)(void**) = nullptr;
  std::uint64_t (*size_of_argument)(unsigned) = nullptr;  ///< 0 behind the last
  int max_dynamic_bytes = 48 << 10;
};

struct Library {
  void* object = nullptr;
  Kernel kernel;
};

}  // namespace softcuda
