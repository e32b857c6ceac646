#include "device_memory.hpp"

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <map>

#include "failure.hpp"

namespace ingot::cli {
namespace {

using Address = std::uint64_t;  // CUdeviceptr
using Handle = void*;           // CUcontext

/// What is used of the driver.
struct Driver {
  int (*cuDevicePrimaryCtxRetain)(Handle*, int);
  int (*cuCtxSetCurrent)(Handle);
  int (*cuMemAlloc)(Address*, std::size_t);
  int (*cuMemFree)(Address);
  int (*cuMemcpyHtoD)(Address, const void*, std::size_t);
};

template <class F>
void load(void* library, F*& function, const char* name) {
  function = reinterpret_cast<F*>(dlsym(library, name));
  if (function == nullptr) throw Failure(std::string("libcuda has no function ") + name);
}

/// The library is open already: a CUDA device has been found.
Driver open_driver() {
  const char* chosen = std::getenv("INGOT_LIBCUDA");
  const std::string name = chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1";
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Failure(name + ": cannot be opened");
  Driver driver{};
  load(library, driver.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  load(library, driver.cuCtxSetCurrent, "cuCtxSetCurrent");
  load(library, driver.cuMemAlloc, "cuMemAlloc_v2");
  load(library, driver.cuMemFree, "cuMemFree_v2");
  load(library, driver.cuMemcpyHtoD, "cuMemcpyHtoD_v2");
  return driver;
}

void check(int result, const std::string& action) {
  if (result != 0) throw Failure(action + ": CUresult " + std::to_string(result));
}

int ordinal_of(const std::string& device) {
  const std::size_t colon = device.find(':');
  return colon == std::string::npos ? 0 : std::atoi(device.c_str() + colon + 1);
}

}  // namespace

bool has_own_memory(const std::string& device) { return device.starts_with("cuda"); }

Array on_device(const Array& array, const std::string& device) {
  static const Driver driver = open_driver();
  static std::map<int, Handle> contexts;  // retained until the program ends
  Handle& context = contexts[ordinal_of(device)];
  if (context == nullptr) {
    check(driver.cuDevicePrimaryCtxRetain(&context, ordinal_of(device)),
          "cuDevicePrimaryCtxRetain");
  }
  check(driver.cuCtxSetCurrent(context), "cuCtxSetCurrent");
  const std::size_t bytes = packed_bytes(array);
  Address address = 0;
  check(driver.cuMemAlloc(&address, bytes == 0 ? 1 : bytes),
        device + ": allocating " + std::to_string(bytes) + " bytes");
  Array copy = array;
  auto* const pointer = reinterpret_cast<std::byte*>(address);  // NOLINT(performance-no-int-to-ptr)
  copy.data = std::shared_ptr<std::byte>(
      pointer, [](std::byte* p) { driver.cuMemFree(reinterpret_cast<Address>(p)); });
  check(driver.cuMemcpyHtoD(address, array.data.get(), bytes), "cuMemcpyHtoD");
  return copy;
}

}  // namespace ingot::cli
