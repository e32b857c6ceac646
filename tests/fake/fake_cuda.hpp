// What tests may ask of the fake driver and compiler (fake_cuda.cpp), by name through dlsym.
#pragma once

#include <cstddef>

extern "C" {

/// Called in place of a kernel: arguments as cuLaunchKernelEx has them.
using FakeKernel = void (*)(void** arguments);

struct FakeCuda {
  int version = 13000;  ///< of the driver
  int devices = 1;
  int compute_capability = 90;
  const char* failing = "";  ///< name of a function that fails
  int failure = 0;           ///< what it returns
  FakeKernel kernel = nullptr;
  bool capturing = false;
  bool rejects_tensor_maps = false;
  const char* compile_log = nullptr;  ///< the compiler fails, with this log
  int compiler_minor = 0;             ///< of the compiler's version, 13.0

  int compilations = 0, loads = 0, launches = 0, allocations = 0, frees = 0, contexts_pushed = 0;
  unsigned last_grid = 0, last_block = 0, last_cluster = 0;
};

/// The state; tests change it, and set it back by assigning FakeCuda{}.
FakeCuda* fake_cuda();
/// Memory that the fake driver takes for a GPU's.
void* fake_device_memory(std::size_t bytes, int device);
void fake_device_free(void* memory);
}
