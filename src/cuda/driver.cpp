#include "cuda/driver.hpp"

#include <dlfcn.h>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "core/regular_file.hpp"

namespace ingot::cuda {
namespace {

constexpr int oldest_version = 12000;  // cuLibraryLoadData, cuTensorMapEncodeTiled

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// Fills function pointers until one is missing; `missing` then names it.
class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}

  template <class F>
  void load(F*& function, const char* name) {
    function = reinterpret_cast<F*>(dlsym(library_, name));
    if (function == nullptr && missing_.empty()) missing_ = name;
  }

  const std::string& missing() const { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

// Names with _v2 are what a program compiled today against cuda.h links.
void load_devices(Symbols& s, Driver& d) {
  s.load(d.cuInit, "cuInit");
  s.load(d.cuDriverGetVersion, "cuDriverGetVersion");
  s.load(d.cuGetErrorName, "cuGetErrorName");
  s.load(d.cuGetErrorString, "cuGetErrorString");
  s.load(d.cuDeviceGetCount, "cuDeviceGetCount");
  s.load(d.cuDeviceGet, "cuDeviceGet");
  s.load(d.cuDeviceGetName, "cuDeviceGetName");
  s.load(d.cuDeviceTotalMem, "cuDeviceTotalMem_v2");
  s.load(d.cuDeviceGetAttribute, "cuDeviceGetAttribute");
  s.load(d.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  s.load(d.cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2");
  s.load(d.cuCtxPushCurrent, "cuCtxPushCurrent_v2");
  s.load(d.cuCtxPopCurrent, "cuCtxPopCurrent_v2");
  s.load(d.cuCtxGetDevice, "cuCtxGetDevice");
}

void load_kernels(Symbols& s, Driver& d) {
  s.load(d.cuLibraryLoadData, "cuLibraryLoadData");
  s.load(d.cuLibraryUnload, "cuLibraryUnload");
  s.load(d.cuLibraryGetKernel, "cuLibraryGetKernel");
  s.load(d.cuKernelGetFunction, "cuKernelGetFunction");
  s.load(d.cuKernelSetAttribute, "cuKernelSetAttribute");
  s.load(d.cuLaunchKernelEx, "cuLaunchKernelEx");
  s.load(d.cuTensorMapEncodeTiled, "cuTensorMapEncodeTiled");
}

void load_memory(Symbols& s, Driver& d) {
  s.load(d.cuPointerGetAttributes, "cuPointerGetAttributes");
  s.load(d.cuMemPoolCreate, "cuMemPoolCreate");
  s.load(d.cuMemPoolDestroy, "cuMemPoolDestroy");
  s.load(d.cuMemPoolSetAttribute, "cuMemPoolSetAttribute");
  s.load(d.cuMemAllocFromPoolAsync, "cuMemAllocFromPoolAsync");
  s.load(d.cuMemFreeAsync, "cuMemFreeAsync");
  s.load(d.cuMemHostAlloc, "cuMemHostAlloc");
  s.load(d.cuMemFreeHost, "cuMemFreeHost");
  s.load(d.cuMemsetD32Async, "cuMemsetD32Async");
  s.load(d.cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2");
  s.load(d.cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2");
}

void load_streams(Symbols& s, Driver& d) {
  s.load(d.cuStreamCreate, "cuStreamCreate");
  s.load(d.cuStreamDestroy, "cuStreamDestroy_v2");
  s.load(d.cuStreamSynchronize, "cuStreamSynchronize");
  s.load(d.cuStreamIsCapturing, "cuStreamIsCapturing");
  s.load(d.cuStreamGetId, "cuStreamGetId");
  s.load(d.cuThreadExchangeStreamCaptureMode, "cuThreadExchangeStreamCaptureMode");
  s.load(d.cuEventCreate, "cuEventCreate");
  s.load(d.cuEventDestroy, "cuEventDestroy_v2");
  s.load(d.cuEventRecord, "cuEventRecord");
  s.load(d.cuEventQuery, "cuEventQuery");
  s.load(d.cuEventSynchronize, "cuEventSynchronize");
  s.load(d.cuEventElapsedTime, "cuEventElapsedTime");
}

std::string text_of(const Driver& driver, Result result) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver.cuGetErrorName(result, &name) != code::success || name == nullptr) {
    return "CUresult " + std::to_string(result);
  }
  if (driver.cuGetErrorString(result, &text) != code::success || text == nullptr) return name;
  return std::string(name) + " (" + text + ")";
}

/// "" where the driver can be used.
std::string start(const Symbols& symbols, Driver& driver) {
  if (driver.cuDriverGetVersion != nullptr) driver.cuDriverGetVersion(&driver.version);
  if (driver.version != 0 && driver.version < oldest_version) {
    return "the NVIDIA driver must be of CUDA " + version_text(oldest_version) +
           " or newer, this one is of " + version_text(driver.version);
  }
  if (!symbols.missing().empty()) return "libcuda has no function " + symbols.missing();
  const Result result = driver.cuInit(0);
  if (result == code::no_device) return "no NVIDIA GPU";
  if (result != code::success) return "cuInit: " + text_of(driver, result);
  int count = 0;
  if (driver.cuDeviceGetCount(&count) != code::success || count == 0) return "no NVIDIA GPU";
  return {};
}

}  // namespace

void Driver::check(Result result, std::string_view action) const {
  if (result == code::success) return;
  const Code kind = result == code::out_of_memory ? Code::out_of_memory : Code::device_error;
  throw Error(kind, "cuda: " + std::string(action) + ": " + text_of(*this, result));
}

DriverResult open_driver() {
  const std::string chosen = environment("INGOT_LIBCUDA");
  const bool is_chosen = !chosen.empty();
  const std::string name = is_chosen ? chosen : "libcuda.so.1";
  const bool is_none = is_chosen && is_no_regular_file(name.c_str());
  void* library = is_none ? nullptr : dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    if (is_chosen) return {nullptr, "INGOT_LIBCUDA: cannot open " + name};
    return {nullptr, name + " is not installed"};
  }
  Symbols symbols(library);
  auto driver = std::make_shared<Driver>();
  load_devices(symbols, *driver);
  load_kernels(symbols, *driver);
  load_memory(symbols, *driver);
  load_streams(symbols, *driver);
  if (std::string reason = start(symbols, *driver); !reason.empty()) return {nullptr, reason};
  return {driver, {}};
}

}  // namespace ingot::cuda
