#include "cuda/cuda_program.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "core/source.hpp"
#include "cuda/config.hpp"

namespace ingot::cuda {
namespace {

/// The number in front of `word`, 0 where the line has none: "24 bytes spill stores".
std::int64_t number_before(const std::string& line, const std::string& word) {
  const std::size_t end = line.find(word);
  if (end == std::string::npos || end == 0) return 0;
  std::size_t begin = line.find_last_not_of(' ', end - 1);
  if (begin == std::string::npos) return 0;
  begin = line.find_last_not_of("0123456789", begin);
  return std::strtoll(line.c_str() + (begin == std::string::npos ? 0 : begin + 1), nullptr, 10);
}

/// C7508: setmaxnreg ignored. C7510 to C7518: wgmma serialised. C7519 and up say other things.
bool is_serialisation(const std::string& line) {
  for (std::size_t at = line.find("C75"); at != std::string::npos; at = line.find("C75", at + 1)) {
    const std::string code = line.substr(at, 5);
    if (code == "C7508" || (code >= "C7510" && code <= "C7518")) return true;
  }
  return line.find("wgmma.mma_async instructions are serialized") != std::string::npos;
}

}  // namespace

std::string kernel_source(const KernelPlan& kernel) {
  return assemble_source(kernel.file, kernel.config, "static constexpr", kernel_prologue);
}

std::vector<std::string> compile_options(std::string_view arch) {
  return {"--gpu-architecture=" + std::string(arch), "--std=c++17", "-default-device",
          "--ptxas-options=-v"};
}

ResourceReport read_report(const std::string& log) {
  ResourceReport report;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    report.registers = std::max(report.registers, number_before(line, " registers"));
    report.spill_bytes += number_before(line, " bytes spill stores");
    report.spill_bytes += number_before(line, " bytes spill loads");
    report.stack_bytes += number_before(line, " bytes stack frame");
    if (is_serialisation(line)) report.serialised.push_back(line);
  }
  return report;
}

Compiler::Compiler(int driver_version) {
  const char* chosen = std::getenv("INGOT_LIBNVRTC");
  key_suffix_ = "driver " + std::to_string(driver_version) + "\nnvrtc " +
                (chosen == nullptr ? "" : chosen) + '\n';
}

const Nvrtc& Compiler::nvrtc() {
  const std::lock_guard lock(mutex_);
  if (nvrtc_ == nullptr) nvrtc_ = Nvrtc::open();
  return *nvrtc_;
}

std::vector<std::byte> Compiler::compile(const std::string& source, std::string_view arch) {
  const std::vector<std::string> options = compile_options(arch);
  std::string key = source;
  for (const std::string& option : options) key += option + '\n';
  key += key_suffix_;
  if (std::optional<std::vector<std::byte>> found = disk_.find(key)) return *std::move(found);
  Compiled compiled = nvrtc().compile(source, options);
  disk_.store(key, compiled.cubin);
  return std::move(compiled.cubin);
}

}  // namespace ingot::cuda
