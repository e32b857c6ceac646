#include "metal/device/device.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace ingot::metal {
namespace {

constexpr int oldest_family = 7;  // M1: the first with simdgroup matrices on a Mac

int family_of(MTL::Device* device) {
  constexpr MTL::GPUFamily families[] = {MTL::GPUFamilyApple10, MTL::GPUFamilyApple9,
                                         MTL::GPUFamilyApple8, MTL::GPUFamilyApple7};
  for (const MTL::GPUFamily family : families) {
    if (device->supportsFamily(family)) {
      return oldest_family + static_cast<int>(family - MTL::GPUFamilyApple7);
    }
  }
  return 0;
}

DeviceCaps caps_of(MTL::Device* device) {
  const AutoreleaseScope scope;
  DeviceCaps caps;
  caps.chip = device->name()->utf8String();
  caps.family = family_of(device);
  caps.cores = cores_of(caps.chip);
  caps.max_threadgroup_bytes = static_cast<std::int64_t>(device->maxThreadgroupMemoryLength());
  const NS::OperatingSystemVersion os = NS::ProcessInfo::processInfo()->operatingSystemVersion();
  caps.os_major = static_cast<int>(os.majorVersion);
  caps.os_minor = static_cast<int>(os.minorVersion);
  return caps;
}

MTL::LanguageVersion version_of(Language language) {
  return static_cast<MTL::LanguageVersion>((language.major << 16) + language.minor);
}
static_assert(MTL::LanguageVersion3_1 == (3 << 16) + 1);

/// "Version 15.1 (Build 24B83)": the compiler of kernels is the system's.
std::string system_build() {
  return NS::ProcessInfo::processInfo()->operatingSystemVersionString()->utf8String();
}

/// Infinities and NaN have a meaning in attention: no fast mathematics but where a kernel says so.
NS::SharedPtr<MTL::CompileOptions> compile_options(const DeviceCaps& caps) {
  auto options = NS::TransferPtr(MTL::CompileOptions::alloc()->init());
  options->setLanguageVersion(version_of(language_of(caps)));
  if (caps.os_major >= 15) {
    options->setMathMode(MTL::MathModeSafe);
    options->setMathFloatingPointFunctions(MTL::MathFloatingPointFunctionsPrecise);
  } else {
    options->setFastMathEnabled(false);
  }
  return options;
}

[[noreturn]] void fail_to_compile(const KernelText& text, const std::string& log) {
  throw Error(Code::compile_failed, "compile_failed: " + text.file + ": " + log);
}

/// Registers a kernel needs may leave room for fewer threads than its plan has, or the device may
/// allow fewer to any kernel.
void check_threads(const KernelText& text, NS::UInteger allowed) {
  if (allowed >= static_cast<NS::UInteger>(text.threads)) return;
  throw Error(Code::unsupported, "unsupported: " + text.file + ": needs " +
                                     std::to_string(text.threads) +
                                     " threads, this device allows it " + std::to_string(allowed));
}

void check_memory(const KernelText& text, MTL::ComputePipelineState* state,
                  const DeviceCaps& caps) {
  const std::int64_t bytes =
      text.threadgroup_bytes + static_cast<std::int64_t>(state->staticThreadgroupMemoryLength());
  if (bytes > caps.max_threadgroup_bytes) {
    throw Error(Code::unsupported, "unsupported: " + text.file + ": needs " +
                                       std::to_string(bytes) +
                                       " bytes of threadgroup memory, this device has " +
                                       std::to_string(caps.max_threadgroup_bytes));
  }
}

/// A part of the memory that this process should use at most.
std::size_t most_kept_bytes(MTL::Device* device) {
  return static_cast<std::size_t>(device->recommendedMaxWorkingSetSize() / 16);
}

}  // namespace

Device::Device(NS::SharedPtr<MTL::Device> device)
    : device_(std::move(device)),
      queue_(NS::TransferPtr(device_->newCommandQueue())),
      caps_(caps_of(device_.get())),
      buffers_(std::make_shared<BufferPool>(device_, most_kept_bytes(device_.get()))) {
  if (!queue_) throw Error(Code::device_error, "device " + caps_.chip + ": gives no command queue");
}

std::shared_ptr<const Pipeline> Device::pipeline(const std::string& key,
                                                 const std::function<KernelText()>& make_text) {
  return pipelines_.get(key, [&] { return compile(make_text()); });
}

std::shared_ptr<const Pipeline> Device::compile(const KernelText& text) const {
  const AutoreleaseScope scope;
  NS::Error* error = nullptr;
  const auto library = NS::TransferPtr(
      device_->newLibrary(to_string(text.source), compile_options(caps_).get(), &error));
  if (!library) fail_to_compile(text, text_of(error));
  const auto function = NS::TransferPtr(library->newFunction(to_string(text.entry)));
  if (!function) fail_to_compile(text, "has no kernel function " + text.entry);

  check_threads(text, device_->maxThreadsPerThreadgroup().width);  // what a pipeline may be told
  const std::string key =
      caps_.chip + '\n' + system_build() + '\n' + std::to_string(text.threads) + '\n' + text.source;
  auto state = make_pipeline(device_.get(), function.get(), text.threads, disk_cache_, key, &error);
  if (!state) fail_to_compile(text, text_of(error));
  check_threads(text, state->maxTotalThreadsPerThreadgroup());
  check_memory(text, state.get(), caps_);
  return std::make_shared<const Pipeline>(Pipeline{std::move(state)});
}

NS::SharedPtr<MTL::Device> usable_device() {
  const AutoreleaseScope scope;
  auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
  if (device && family_of(device.get()) < oldest_family) device.reset();
  return device;
}

}  // namespace ingot::metal
