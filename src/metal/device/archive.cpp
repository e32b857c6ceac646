// Pipelines through MTLBinaryArchive: the machine code of a kernel, kept between processes.
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "metal/device/device.hpp"

namespace ingot::metal {
namespace {

/// The archive in the file `path`, or, with path empty, a new one. Null where the file is none.
NS::SharedPtr<MTL::BinaryArchive> open_archive(MTL::Device* device, const std::string& path) {
  const auto descriptor = NS::TransferPtr(MTL::BinaryArchiveDescriptor::alloc()->init());
  if (!path.empty()) descriptor->setUrl(NS::URL::fileURLWithPath(to_string(path)));
  NS::Error* error = nullptr;
  return NS::TransferPtr(device->newBinaryArchive(descriptor.get(), &error));
}

/// The compiler is told how many threads a threadgroup has: it then finds registers for all of
/// them.
NS::SharedPtr<MTL::ComputePipelineDescriptor> describe(MTL::Function* function,
                                                       std::int64_t threads) {
  auto descriptor = NS::TransferPtr(MTL::ComputePipelineDescriptor::alloc()->init());
  descriptor->setComputeFunction(function);
  descriptor->setThreadGroupSizeIsMultipleOfThreadExecutionWidth(true);
  descriptor->setMaxTotalThreadsPerThreadgroup(static_cast<NS::UInteger>(threads));
  return descriptor;
}

/// The pipeline where the archive holds it, else null.
NS::SharedPtr<MTL::ComputePipelineState> load(MTL::Device* device, MTL::Function* function,
                                              std::int64_t threads, const std::string& path) {
  const auto archive = open_archive(device, path);
  if (!archive) return {};
  const auto descriptor = describe(function, threads);
  descriptor->setBinaryArchives(NS::Array::array(archive.get()));
  NS::Error* error = nullptr;
  return NS::TransferPtr(device->newComputePipelineState(
      descriptor.get(), MTL::PipelineOptionFailOnBinaryArchiveMiss, nullptr, &error));
}

/// Without effect where it fails: the next process compiles again.
void store(MTL::Device* device, MTL::Function* function, std::int64_t threads,
           const std::string& path) {
  static std::atomic<unsigned> serial{0};
  const auto archive = open_archive(device, "");
  const auto descriptor = describe(function, threads);
  NS::Error* error = nullptr;
  if (!archive || !archive->addComputePipelineFunctions(descriptor.get(), &error)) return;
  const std::string temporary =
      path + "." + std::to_string(::getpid()) + "-" + std::to_string(serial.fetch_add(1));
  if (!archive->serializeToURL(NS::URL::fileURLWithPath(to_string(temporary)), &error) ||
      std::rename(temporary.c_str(), path.c_str()) != 0) {
    ::unlink(temporary.c_str());
  }
}

}  // namespace

NS::SharedPtr<MTL::ComputePipelineState> make_pipeline(MTL::Device* device, MTL::Function* function,
                                                       std::int64_t threads,
                                                       const std::string& path, NS::Error** error) {
  if (!path.empty() && ::access(path.c_str(), R_OK) == 0) {
    if (auto state = load(device, function, threads, path)) return state;
  }
  const auto descriptor = describe(function, threads);
  auto state = NS::TransferPtr(
      device->newComputePipelineState(descriptor.get(), MTL::PipelineOptionNone, nullptr, error));
  if (state && !path.empty()) store(device, function, threads, path);
  return state;
}

}  // namespace ingot::metal
