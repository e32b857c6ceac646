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

NS::SharedPtr<MTL::ComputePipelineDescriptor> describe(MTL::Function* function) {
  auto descriptor = NS::TransferPtr(MTL::ComputePipelineDescriptor::alloc()->init());
  descriptor->setComputeFunction(function);
  descriptor->setThreadGroupSizeIsMultipleOfThreadExecutionWidth(true);
  return descriptor;
}

/// The pipeline where the archive holds it, else null.
NS::SharedPtr<MTL::ComputePipelineState> load(MTL::Device* device, MTL::Function* function,
                                              const std::string& path) {
  const auto archive = open_archive(device, path);
  if (!archive) return {};
  const auto descriptor = describe(function);
  descriptor->setBinaryArchives(NS::Array::array(archive.get()));
  NS::Error* error = nullptr;
  return NS::TransferPtr(device->newComputePipelineState(
      descriptor.get(), MTL::PipelineOptionFailOnBinaryArchiveMiss, nullptr, &error));
}

/// Without effect where it fails: the next process compiles again.
void store(MTL::Device* device, MTL::Function* function, const std::string& path) {
  static std::atomic<unsigned> serial{0};
  const auto archive = open_archive(device, "");
  const auto descriptor = describe(function);
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
                                                       const std::string& path, NS::Error** error) {
  if (!path.empty() && ::access(path.c_str(), R_OK) == 0) {
    if (auto state = load(device, function, path)) return state;
  }
  const auto descriptor = describe(function);
  auto state = NS::TransferPtr(
      device->newComputePipelineState(descriptor.get(), MTL::PipelineOptionNone, nullptr, error));
  if (state && !path.empty()) store(device, function, path);
  return state;
}

}  // namespace ingot::metal
