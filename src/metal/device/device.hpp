// One Metal device: what it can do, its queue, its compiled kernels and its buffers.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/kernel_cache.hpp"
#include "metal/caps.hpp"
#include "metal/device/buffer_pool.hpp"
#include "metal/device/metal_cpp.hpp"

namespace ingot::metal {

/// A kernel to be compiled.
struct KernelText {
  std::string file;   ///< of the kernel, for messages: "metal/kernels/forward.metal"
  std::string entry;  ///< name of the function
  std::string source;
  std::int64_t threads = 0;            ///< of a threadgroup
  std::int64_t threadgroup_bytes = 0;  ///< dynamic
};

struct Pipeline {
  NS::SharedPtr<MTL::ComputePipelineState> state;
};

class Device {
 public:
  /// `device` must be of Apple family 7 or newer.
  explicit Device(NS::SharedPtr<MTL::Device> device);

  const DeviceCaps& caps() const { return caps_; }
  MTL::Device* handle() const { return device_.get(); }
  MTL::CommandQueue* queue() const { return queue_.get(); }
  const std::shared_ptr<BufferPool>& buffers() const { return buffers_; }

  /// Why compiled kernels are not kept between processes, "" where they are.
  std::string why_not_kept() const { return disk_cache_.unusable(); }

  /// The kernel of this key; `make_text` is called where it is not compiled yet. Throws
  /// Error(compile_failed) with the compiler's log.
  std::shared_ptr<const Pipeline> pipeline(const std::string& key,
                                           const std::function<KernelText()>& make_text);

 private:
  std::shared_ptr<const Pipeline> compile(const KernelText& text) const;

  const NS::SharedPtr<MTL::Device> device_;
  const NS::SharedPtr<MTL::CommandQueue> queue_;
  const DeviceCaps caps_;
  const std::shared_ptr<BufferPool> buffers_;
  const DiskCache disk_cache_;
  KernelCache<Pipeline> pipelines_;
};

/// The GPU of this machine where kernels here can run on it, else null. Macs have one of these.
NS::SharedPtr<MTL::Device> usable_device();

/// The compiled function of a library, for threadgroups of `threads`, through a binary archive that
/// the cache keeps under `key`. An archive that Metal does not take is a miss. Null, and *error
/// set, where the pipeline cannot be made.
NS::SharedPtr<MTL::ComputePipelineState> make_pipeline(MTL::Device* device, MTL::Function* function,
                                                       std::int64_t threads, const DiskCache& cache,
                                                       const std::string& key, NS::Error** error);

}  // namespace ingot::metal
