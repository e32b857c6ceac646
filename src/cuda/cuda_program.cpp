#include "cuda/cuda_program.hpp"

#include <algorithm>
#include <cstdlib>
#include <span>
#include <sstream>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "core/source.hpp"
#include "cuda/config.hpp"

namespace ingot::cuda {
namespace {

/// The entry of the disk cache that says which compiler stored there last.
constexpr std::string_view last_compiler = "the last compiler of this folder";

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

Compiler::Compiler(int driver_version) : driver_("driver " + std::to_string(driver_version)) {}

const Nvrtc& Compiler::nvrtc() {
  const std::lock_guard lock(mutex_);
  if (nvrtc_ == nullptr) nvrtc_ = Nvrtc::open();
  return *nvrtc_;
}

std::optional<std::vector<std::byte>> Compiler::find_without_compiler(
    const std::string& key) const {
  const auto last = disk_.find(last_compiler);
  if (!last) return std::nullopt;
  return disk_.find(key + std::string(reinterpret_cast<const char*>(last->data()), last->size()));
}

std::string Compiler::key_without_compiler(const std::string& source, std::string_view arch) const {
  std::string key = source;
  for (const std::string& option : compile_options(arch)) key += option + '\n';
  return key + driver_ + '\n';
}

std::string Compiler::key_of(const std::string& source, std::string_view arch) {
  return key_without_compiler(source, arch) + nvrtc().identity();
}

std::vector<std::byte> Compiler::compile(const std::string& source, std::string_view arch) {
  std::string key = key_without_compiler(source, arch);
  const Nvrtc* compiler = nullptr;
  try {
    compiler = &nvrtc();
  } catch (const Error&) {
    if (!environment("INGOT_LIBNVRTC").empty()) throw;  // there should be that one
    if (auto found = find_without_compiler(key)) return *std::move(found);
    throw;
  }
  key += compiler->identity();
  if (std::optional<std::vector<std::byte>> found = disk_.find(key)) return *std::move(found);
  Compiled compiled = compiler->compile(source, compile_options(arch));
  disk_.store(key, compiled.cubin);
  const auto identity = std::as_bytes(std::span(compiler->identity()));
  const auto last = disk_.find(last_compiler);
  if (!last || !std::ranges::equal(*last, identity)) disk_.store(last_compiler, identity);
  return std::move(compiled.cubin);
}

}  // namespace ingot::cuda
