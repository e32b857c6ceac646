// NVRTC, the compiler of CUDA kernels, opened at run time: of a CUDA toolkit, or inside pip's wheel
// nvidia-cuda-nvrtc.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace ingot::cuda {

struct Compiled {
  std::vector<std::byte> cubin;
  std::string log;  ///< of the compiler and, with --ptxas-options=-v, of the assembler
};

class Nvrtc {
 public:
  /// Opens the library that INGOT_LIBNVRTC names, else the first one found: on the loader's path
  /// (libnvrtc.so.13, .12), below CUDA_HOME or CUDA_PATH, in /usr/local/cuda, in the site-packages
  /// of this process's Python, virtual environment or Conda environment. The library stays open.
  /// Throws Error(device_error) that says where it was looked for.
  static std::shared_ptr<const Nvrtc> open();

  /// From a kernel's text to machine code. Throws Error(compile_failed) with the compiler's log.
  Compiled compile(const std::string& source, std::span<const std::string> options) const;

  const std::string& path() const { return path_; }
  int version() const { return version_; }  ///< 13000 is 13.0
  /// Version and build: "nvrtc 13.0, build 65be0db3...". Another library has another one.
  const std::string& identity() const { return identity_; }

 private:
  using Result = int;
  using Program = struct _nvrtcProgram*;

  explicit Nvrtc(void* library, std::string path);
  void check(Result result, const char* action) const;
  std::string log_of(Program program) const;

  std::string path_, identity_;
  int version_ = 0;
  Result (*nvrtcVersion_)(int*, int*) = nullptr;
  Result (*nvrtcCreateProgram_)(Program*, const char*, const char*, int, const char* const*,
                                const char* const*) = nullptr;
  Result (*nvrtcDestroyProgram_)(Program*) = nullptr;
  Result (*nvrtcCompileProgram_)(Program, int, const char* const*) = nullptr;
  Result (*nvrtcGetCUBINSize_)(Program, std::size_t*) = nullptr;
  Result (*nvrtcGetCUBIN_)(Program, char*) = nullptr;
  Result (*nvrtcGetProgramLogSize_)(Program, std::size_t*) = nullptr;
  Result (*nvrtcGetProgramLog_)(Program, char*) = nullptr;
  const char* (*nvrtcGetErrorString_)(Result) = nullptr;
};

}  // namespace ingot::cuda
