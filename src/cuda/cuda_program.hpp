// From a kernel's plan to machine code: assembled text, NVRTC, and the cache on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/kernel_cache.hpp"
#include "core/plan.hpp"
#include "cuda/nvrtc.hpp"

namespace ingot::cuda {

inline constexpr const char* entry_name = "ingot_kernel";

/// What NVRTC compiles for this kernel.
std::string kernel_source(const KernelPlan& kernel);

/// NVRTC's options for Config::arch, "sm_90a".
std::vector<std::string> compile_options(std::string_view arch);

/// What the assembler says of a kernel; see --ptxas-options=-v.
struct ResourceReport {
  std::int64_t registers = 0;
  std::int64_t spill_bytes = 0;  ///< stores and loads
  std::int64_t stack_bytes = 0;
  /// Lines with C7508 or C7510 to C7518: setmaxnreg ignored, or matrix products serialised, which
  /// costs a third of the speed without a word elsewhere.
  std::vector<std::string> serialised;
};
ResourceReport read_report(const std::string& log);

/// Compiles, or finds in the disk cache what was compiled before. Opening NVRTC takes
/// 0.15 s, so that a process which finds all its kernels on disk never does it; hence the key of
/// the disk cache is the text, the options, the driver's version and INGOT_LIBNVRTC, not NVRTC's
/// own version. Safe to use from several threads.
class Compiler {
 public:
  explicit Compiler(int driver_version);

  /// Machine code of a kernel's text. Throws Error(compile_failed) with the compiler's log, or
  /// Error(device_error) where NVRTC is needed and missing.
  std::vector<std::byte> compile(const std::string& source, std::string_view arch);

 private:
  const Nvrtc& nvrtc();

  std::string key_suffix_;
  DiskCache disk_;
  std::mutex mutex_;
  std::shared_ptr<const Nvrtc> nvrtc_;
};

}  // namespace ingot::cuda
