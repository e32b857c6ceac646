// One NVIDIA GPU: its properties, kernels, launches and memory, over the driver. No attention here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cuda/driver.hpp"
#include "cuda/faults.hpp"

namespace ingot::cuda {

struct DeviceCaps {
  int sm = 0;                     ///< ten times the compute capability: 90 is Hopper
  int sm_count = 0;               ///< multiprocessors
  std::int64_t shared_bytes = 0;  ///< most that one block may have
  std::int64_t memory_bytes = 0;
  std::string name;

  bool operator==(const DeviceCaps&) const = default;
};

/// A compiled kernel on one device. Usable from every context of it.
struct LoadedKernel {
  FunctionHandle function = nullptr;
  std::string name;  ///< for messages
};

struct Launch {
  std::array<std::int64_t, 3> grid{1, 1, 1};
  std::int64_t threads = 0;
  std::int64_t shared_bytes = 0;
  std::int64_t cluster = 1;       ///< blocks of one cluster, along x
  bool overlap_previous = false;  ///< programmatic dependent launch
};

enum class Place : std::uint8_t { host, device };

/// Safe to use from several threads. Work goes to the caller's stream in the caller's context where
/// that is one of this device, else in the device's primary context, retained here.
class Device {
 public:
  Device(std::shared_ptr<const Driver> driver, int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// While it lives, a context of the device is current on this thread: the caller's where that is
  /// one of this device, else (or where `own`) the primary context.
  class Current {
   public:
    explicit Current(const Device& device, bool own = false);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const Device& device_;
    bool pushed_ = false;
  };

  /// Memory of the device for the work enqueued on `stream` during its life. Freed in the stream's
  /// order; of a pool, so that repeating it costs about a microsecond. Inside a stream capture both
  /// become nodes of the graph.
  class StreamMemory {
   public:
    StreamMemory(const Device& device, std::size_t bytes, StreamHandle stream);
    ~StreamMemory();
    StreamMemory(const StreamMemory&) = delete;
    StreamMemory& operator=(const StreamMemory&) = delete;
    DeviceAddress address() const { return address_; }
    std::byte* data() const {
      return reinterpret_cast<std::byte*>(address_);  // NOLINT(performance-no-int-to-ptr)
    }

   private:
    const Device& device_;
    StreamHandle stream_;
    DeviceAddress address_ = 0;
  };

  const DeviceCaps& caps() const { return caps_; }
  int ordinal() const { return ordinal_; }
  const Driver& driver() const { return *driver_; }

  /// Loads machine code and allows it this much dynamic shared memory. Never unloaded before the
  /// device goes. May be called while a stream is captured.
  std::shared_ptr<const LoadedKernel> load(std::span<const std::byte> cubin, std::string name,
                                           std::int64_t shared_bytes);

  /// Enqueues one kernel; `arguments` point at its arguments in order. Does not wait.
  void launch(const LoadedKernel& kernel, const Launch& launch, StreamHandle stream,
              std::span<void* const> arguments) const;

  /// Where a tensor lies. Throws Error(invalid_argument) for memory of another GPU.
  Place place_of(const void* address, const char* argument) const;

  bool is_capturing(StreamHandle stream) const;
  /// A number that no other stream of this process has had or will have.
  std::uint64_t number_of(StreamHandle stream) const;

  /// Memory full of zeros, for good and for every stream. May be called while a stream is captured.
  std::unique_ptr<StreamMemory> zeros(std::int64_t bytes);

  /// A word of host memory that kernels may write, of the driver's; the caller frees it.
  void* host_word() const;

  Faults& faults() const { return *faults_; }

  /// A stream of ingot's own for calls with host memory; give it back when its work is done.
  StreamHandle take_stream();
  void give_stream(StreamHandle stream) noexcept;

 private:
  DeviceCaps read_caps() const;
  ContextHandle context() const;
  PoolHandle pool() const;

  std::shared_ptr<const Driver> driver_;
  int ordinal_;
  DeviceHandle handle_ = 0;
  DeviceCaps caps_;
  mutable std::mutex mutex_;
  mutable ContextHandle context_ = nullptr;
  mutable PoolHandle pool_ = nullptr;
  std::vector<LibraryHandle> libraries_;
  std::vector<StreamHandle> streams_;
  std::unique_ptr<Faults> faults_ = std::make_unique<Faults>(*this);
};

}  // namespace ingot::cuda
