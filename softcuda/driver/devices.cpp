// Devices and contexts.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "driver/objects.hpp"

namespace softcuda {
namespace {

struct Named {
  const char* key;
  DeviceModel model;
};
constexpr Named models[] = {
    {"sm90", {"softcuda, a software device of compute capability 9.0", 9, 0, 132, 232448}},
    {"sm80", {"softcuda, a software device of compute capability 8.0", 8, 0, 108, 166912}},
    {"sm86", {"softcuda, a software device of compute capability 8.6", 8, 6, 84, 101376}},
    {"sm120", {"softcuda, a software device of compute capability 12.0", 12, 0, 188, 101376}},
};

const DeviceModel* chosen_model() {
  const char* const chosen = std::getenv("SOFTCUDA_DEVICE");
  const std::string_view key = chosen == nullptr || *chosen == '\0' ? "sm90" : chosen;
  for (const Named& named : models) {
    if (key == named.key) return &named.model;
  }
  std::fprintf(stderr,
               "softcuda: error: SOFTCUDA_DEVICE: must be sm90, sm80, sm86 or sm120, is %s\n",
               chosen);
  return nullptr;
}

/// A smaller device chooses the kernels of large problems for small ones, too.
int multiprocessors() {
  const char* const chosen = std::getenv("SOFTCUDA_MULTIPROCESSORS");
  const int count = chosen == nullptr ? 0 : std::atoi(chosen);
  return count > 0 ? count : device_model().multiprocessors;
}

/// Of the calling thread; every context is the one of the device.
thread_local int contexts = 0;
int the_context;

}  // namespace

const DeviceModel& device_model() {
  static const DeviceModel* const model = chosen_model();
  return model == nullptr ? models[0].model : *model;
}

}  // namespace softcuda

using softcuda::Result;
using Context = void*;

CUDA_API int cuInit(unsigned) {
  return softcuda::chosen_model() == nullptr ? softcuda::invalid_device : softcuda::success;
}

CUDA_API int cuDriverGetVersion(int* version) {
  *version = 13000;
  return softcuda::success;
}

CUDA_API int cuGetErrorName(int result, const char** name) {
  switch (result) {
    case softcuda::success:
      *name = "CUDA_SUCCESS";
      break;
    case softcuda::invalid_value:
      *name = "CUDA_ERROR_INVALID_VALUE";
      break;
    case softcuda::out_of_memory:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      break;
    case softcuda::invalid_image:
      *name = "CUDA_ERROR_INVALID_IMAGE";
      break;
    case softcuda::invalid_context:
      *name = "CUDA_ERROR_INVALID_CONTEXT";
      break;
    case softcuda::illegal_address:
      *name = "CUDA_ERROR_ILLEGAL_ADDRESS";
      break;
    case softcuda::launch_failed:
      *name = "CUDA_ERROR_LAUNCH_FAILED";
      break;
    default:
      *name = "CUDA_ERROR_UNKNOWN";
  }
  return softcuda::success;
}

CUDA_API int cuGetErrorString(int result, const char** text) {
  switch (result) {
    case softcuda::success:
      *text = "no error";
      break;
    case softcuda::invalid_value:
      *text = "invalid argument";
      break;
    case softcuda::out_of_memory:
      *text = "out of memory";
      break;
    case softcuda::illegal_address:
      *text = "softcuda has said on the standard error what a kernel did wrong";
      break;
    default:
      *text = "an error of softcuda";
  }
  return softcuda::success;
}

CUDA_API int cuDeviceGetCount(int* count) {
  *count = 1;
  return softcuda::success;
}

CUDA_API int cuDeviceGet(int* device, int ordinal) {
  if (ordinal != 0) return softcuda::invalid_device;
  *device = 0;
  return softcuda::success;
}

CUDA_API int cuDeviceGetName(char* name, int size, int) {
  std::snprintf(name, static_cast<std::size_t>(size), "%s", softcuda::device_model().name);
  return softcuda::success;
}

CUDA_API int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  *bytes = std::size_t{16} << 30;
  return softcuda::success;
}

CUDA_API int cuDeviceGetAttribute(int* value, int attribute, int) {
  const softcuda::DeviceModel& model = softcuda::device_model();
  switch (attribute) {
    case 16:
      *value = softcuda::multiprocessors();
      return softcuda::success;
    case 75:
      *value = model.major;
      return softcuda::success;
    case 76:
      *value = model.minor;
      return softcuda::success;
    case 97:
      *value = model.shared_bytes;
      return softcuda::success;
    default:
      return softcuda::invalid_value;
  }
}

CUDA_API int cuDevicePrimaryCtxRetain(Context* context, int) {
  *context = &softcuda::the_context;
  return softcuda::success;
}
CUDA_API int cuDevicePrimaryCtxRelease_v2(int) { return softcuda::success; }

CUDA_API int cuCtxPushCurrent_v2(Context context) {
  if (context != &softcuda::the_context) return softcuda::invalid_context;
  ++softcuda::contexts;
  return softcuda::success;
}
CUDA_API int cuCtxPopCurrent_v2(Context* context) {
  if (softcuda::contexts == 0) return softcuda::invalid_context;
  --softcuda::contexts;
  *context = &softcuda::the_context;
  return softcuda::success;
}
CUDA_API int cuCtxSetCurrent(Context context) {
  softcuda::contexts = context == nullptr ? 0 : std::max(softcuda::contexts, 1);
  return softcuda::success;
}
CUDA_API int cuCtxGetDevice(int* device) {
  if (softcuda::contexts == 0) return softcuda::invalid_context;
  *device = 0;
  return softcuda::success;
}
