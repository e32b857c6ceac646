// From a kernel's plan to machine code: assembled text, NVRTC, and the cache on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
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

/// Compiles, or finds in the disk cache what was compiled before. The key is the text, the options,
/// the driver's version, and NVRTC's version and build, so that no kernel outlives an upgrade;
/// NVRTC is opened for that. Where there is none (an image with kernels and without a compiler),
/// what the folder's last compiler made is found. Safe to use from several threads.
class Compiler {
 public:
  explicit Compiler(int driver_version);

  /// Machine code of a kernel's text. Throws Error(compile_failed) with the compiler's log, or
  /// Error(device_error) where NVRTC is needed and missing.
  std::vector<std::byte> compile(const std::string& source, std::string_view arch);

  /// The key in the disk cache; opens NVRTC, whose version and build are part of it.
  std::string key_of(const std::string& source, std::string_view arch);

  /// Why compiled kernels are not kept between processes, "" where they are.
  std::string why_not_kept() const { return disk_.unusable(); }

 private:
  const Nvrtc& nvrtc();
  /// The key, but for what NVRTC says of itself.
  std::string key_without_compiler(const std::string& source, std::string_view arch) const;
  std::optional<std::vector<std::byte>> find_without_compiler(const std::string& key) const;

  std::string driver_;
  DiskCache disk_;
  std::mutex mutex_;
  std::shared_ptr<const Nvrtc> nvrtc_;
};

}  // namespace ingot::cuda
