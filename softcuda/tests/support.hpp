// Kernels of a test, compiled and run through the two C interfaces.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"  // softmetal's
#include "driver/objects.hpp"

extern "C" {
int cuInit(unsigned);
int cuMemAlloc_v2(std::uint64_t*, std::size_t);
int cuMemFree_v2(std::uint64_t);
int cuMemcpyHtoD_v2(std::uint64_t, const void*, std::size_t);
int cuMemcpyDtoH_v2(void*, std::uint64_t, std::size_t);
int cuLibraryLoadData(softcuda::Library**, const void*, int*, void**, unsigned, int*, void**,
                      unsigned);
int cuLibraryUnload(softcuda::Library*);
int cuLibraryGetKernel(softcuda::Kernel**, softcuda::Library*, const char*);
int cuKernelSetAttribute(int, int, softcuda::Kernel*, int);
int cuLaunchKernelEx(const void*, softcuda::Kernel*, void**, void**);
int cuTensorMapEncodeTiled(void*, int, std::uint32_t, void*, const std::uint64_t*,
                           const std::uint64_t*, const std::uint32_t*, const std::uint32_t*, int,
                           int, int, int);
int nvrtcCreateProgram(void**, const char*, const char*, int, const char* const*,
                       const char* const*);
int nvrtcDestroyProgram(void**);
int nvrtcCompileProgram(void*, int, const char* const*);
int nvrtcGetCUBINSize(void*, std::size_t*);
int nvrtcGetCUBIN(void*, char*);
int nvrtcGetProgramLogSize(void*, std::size_t*);
int nvrtcGetProgramLog(void*, char*);
}

namespace test {

using std::uint16_t;
using std::uint32_t;
using std::uint64_t;

struct Compiled {
  int result;
  std::string log;
  std::vector<char> object;
};

inline Compiled compile(const std::string& source) {
  void* program = nullptr;
  nvrtcCreateProgram(&program, source.c_str(), "test.cu", 0, nullptr, nullptr);
  const char* const words[] = {"--gpu-architecture=sm_90a", "--std=c++17"};
  Compiled compiled{nvrtcCompileProgram(program, 2, words), {}, {}};
  std::size_t size = 0;
  nvrtcGetProgramLogSize(program, &size);
  compiled.log.resize(size);
  nvrtcGetProgramLog(program, compiled.log.data());
  if (compiled.result == 0) {
    nvrtcGetCUBINSize(program, &size);
    compiled.object.resize(size);
    nvrtcGetCUBIN(program, compiled.object.data());
  }
  nvrtcDestroyProgram(&program);
  return compiled;
}

/// Memory of the device.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t count) : count_(count) {
    cuMemAlloc_v2(&address_, count * sizeof(T));
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    cuMemcpyHtoD_v2(address_, values.data(), count_ * sizeof(T));
  }
  ~Buffer() { cuMemFree_v2(address_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() const { return reinterpret_cast<T*>(address_); }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    cuMemcpyDtoH_v2(values.data(), address_, count_ * sizeof(T));
    return values;
  }

 private:
  uint64_t address_ = 0;
  std::size_t count_;
};

struct Shape {
  unsigned blocks = 1, threads = 32, shared = 0, cluster = 1;
};

/// A kernel named `test`; `text` is compiled behind helpers of every test.
class Kernel {
 public:
  explicit Kernel(const std::string& text) {
    const Compiled compiled = compile(std::string(helpers) + text);
    if (compiled.result != 0) throw std::runtime_error(compiled.log);
    if (cuLibraryLoadData(&library_, compiled.object.data(), nullptr, nullptr, 0, nullptr, nullptr,
                          0) != 0 ||
        cuLibraryGetKernel(&kernel_, library_, "test") != 0) {
      throw std::runtime_error("the kernel does not load");
    }
    cuKernelSetAttribute(8, 200 << 10, kernel_, 0);
  }
  ~Kernel() { cuLibraryUnload(library_); }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  template <class... Arguments>
  int run(const Shape& shape, const Arguments&... arguments) const {
    struct Attribute {
      uint32_t id, padding, value[16];
    } cluster{4, 0, {shape.cluster, 1, 1}};
    struct {
      unsigned grid[3], block[3], shared;
      void* stream;
      const Attribute* attributes;
      unsigned count;
    } config{{shape.blocks, 1, 1}, {shape.threads, 1, 1}, shape.shared, nullptr, &cluster, 1};
    void* pointers[] = {const_cast<Arguments*>(&arguments)..., nullptr};
    return cuLaunchKernelEx(&config, kernel_, pointers, nullptr);
  }

 private:
  static constexpr const char* helpers = R"(
typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
inline u32 address_of(const void* p) { return (u32)__cvta_generic_to_shared(p); }
inline void init(u32 at, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(at), "r"(count) : "memory");
}
inline bool is_over(u32 at, u32 parity) {
  u32 done;
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
               "selp.u32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(at), "r"(parity) : "memory");
  return done != 0;
}
inline void arrive(u32 at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(at) : "memory");
}
inline void expect(u32 at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(at), "r"(bytes)
               : "memory");
}
inline void wait(u32 at, u32 parity) { while (!is_over(at, parity)) {} }
)";
  softcuda::Library* library_ = nullptr;
  softcuda::Kernel* kernel_ = nullptr;
};

inline float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }
/// Of a number that bf16 holds.
inline uint16_t bf16(float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }
/// Of an integer that f16 holds.
inline uint16_t f16(int x) {
  if (x == 0) return 0;
  unsigned magnitude = static_cast<unsigned>(x < 0 ? -x : x), exponent = 15;
  while (magnitude >> (exponent - 14) != 0) ++exponent;
  const unsigned fraction = (magnitude << (25 - exponent)) & 0x3FF;
  return static_cast<uint16_t>((x < 0 ? 0x8000u : 0u) | exponent << 10 | fraction);
}
/// Small integers without a pattern: products of them are exact in every type.
inline int number(unsigned seed) {
  seed = seed * 2654435761u + 12345u;
  return static_cast<int>((seed >> 13) % 9) - 4;
}

}  // namespace test
