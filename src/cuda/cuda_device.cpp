#include "cuda/cuda_device.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "cuda/cuda_program.hpp"

namespace ingot::cuda {
namespace {

// What the pool keeps of freed memory when a stream is waited for; giving it back to the system
// costs half a millisecond per call.
constexpr std::uint64_t kept_bytes = 2ULL << 30;
constexpr std::int64_t static_limit = 48 << 10;  // dynamic shared memory without asking

std::string device_name(int ordinal) { return "cuda:" + std::to_string(ordinal); }

/// While it lives, this thread may load code although a stream is being captured.
class CaptureRelaxed {
 public:
  explicit CaptureRelaxed(const Driver& driver) : driver_(driver) {
    driver_.cuThreadExchangeStreamCaptureMode(&mode_);
  }
  ~CaptureRelaxed() { driver_.cuThreadExchangeStreamCaptureMode(&mode_); }
  CaptureRelaxed(const CaptureRelaxed&) = delete;
  CaptureRelaxed& operator=(const CaptureRelaxed&) = delete;

 private:
  const Driver& driver_;
  int mode_ = capture_relaxed;
};

}  // namespace

Device::Device(std::shared_ptr<const Driver> driver, int ordinal)
    : driver_(std::move(driver)), ordinal_(ordinal) {
  driver_->check(driver_->cuDeviceGet(&handle_, ordinal), "cuDeviceGet");
  caps_ = read_caps();
}

Device::~Device() {
  faults_.reset();
  for (const LibraryHandle library : libraries_) driver_->cuLibraryUnload(library);
  for (const StreamHandle stream : streams_) driver_->cuStreamDestroy(stream);
  if (pool_ != nullptr) driver_->cuMemPoolDestroy(pool_);
  if (context_ != nullptr) driver_->cuDevicePrimaryCtxRelease(handle_);
}

DeviceCaps Device::read_caps() const {
  const auto attribute_of = [this](int attribute) {
    int value = 0;
    driver_->check(driver_->cuDeviceGetAttribute(&value, attribute, handle_),
                   "cuDeviceGetAttribute");
    return value;
  };
  DeviceCaps caps;
  caps.sm = 10 * attribute_of(attribute::compute_major) + attribute_of(attribute::compute_minor);
  caps.sm_count = attribute_of(attribute::multiprocessors);
  caps.shared_bytes = attribute_of(attribute::shared_bytes_per_block);
  std::size_t bytes = 0;
  driver_->check(driver_->cuDeviceTotalMem(&bytes, handle_), "cuDeviceTotalMem");
  caps.memory_bytes = static_cast<std::int64_t>(bytes);
  char name[256] = {};
  driver_->check(driver_->cuDeviceGetName(name, sizeof name, handle_), "cuDeviceGetName");
  caps.name = name;
  return caps;
}

/// The primary context and the pool are made at the first call that needs them: listing devices, or
/// planning, leaves the GPU alone.
ContextHandle Device::context() const {
  const std::lock_guard lock(mutex_);
  if (context_ == nullptr) {
    driver_->check(driver_->cuDevicePrimaryCtxRetain(&context_, handle_),
                   device_name(ordinal_) + ": cuDevicePrimaryCtxRetain");
  }
  return context_;
}

PoolHandle Device::pool() const {
  const std::lock_guard lock(mutex_);
  if (pool_ != nullptr) return pool_;
  const CaptureRelaxed relaxed(*driver_);
  PoolProperties properties;
  properties.device = handle_;
  PoolHandle pool = nullptr;
  driver_->check(driver_->cuMemPoolCreate(&pool, &properties), "cuMemPoolCreate");
  std::uint64_t kept = kept_bytes;
  driver_->check(driver_->cuMemPoolSetAttribute(pool, attribute::release_threshold, &kept),
                 "cuMemPoolSetAttribute");
  return pool_ = pool;
}

Device::Current::Current(const Device& device, bool own) : device_(device) {
  DeviceHandle current = -1;
  const Driver& driver = *device.driver_;
  if (!own && driver.cuCtxGetDevice(&current) == code::success && current == device.handle_) return;
  driver.check(driver.cuCtxPushCurrent(device.context()), "cuCtxPushCurrent");
  pushed_ = true;
}

Device::Current::~Current() {
  ContextHandle ours = nullptr;
  if (pushed_) device_.driver_->cuCtxPopCurrent(&ours);
}

Device::StreamMemory::StreamMemory(const Device& device, std::size_t bytes, StreamHandle stream)
    : device_(device), stream_(stream) {
  if (bytes == 0) return;
  const Driver& driver = *device.driver_;
  driver.check(driver.cuMemAllocFromPoolAsync(&address_, bytes, device.pool(), stream),
               device_name(device.ordinal_) + ": allocating " + std::to_string(bytes) + " bytes");
}

Device::StreamMemory::~StreamMemory() {
  if (address_ != 0) device_.driver_->cuMemFreeAsync(address_, stream_);
}

std::shared_ptr<const LoadedKernel> Device::load(std::span<const std::byte> cubin, std::string name,
                                                 std::int64_t shared_bytes) {
  const CaptureRelaxed relaxed(*driver_);
  auto kernel = std::make_shared<LoadedKernel>();
  kernel->name = std::move(name);
  LibraryHandle library = nullptr;
  driver_->check(
      driver_->cuLibraryLoadData(&library, cubin.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
      "loading " + kernel->name);
  {
    const std::lock_guard lock(mutex_);
    libraries_.push_back(library);
  }
  KernelHandle handle = nullptr;
  driver_->check(driver_->cuLibraryGetKernel(&handle, library, entry_name),
                 "finding the entry of " + kernel->name);
  if (shared_bytes > static_limit) {
    driver_->check(
        driver_->cuKernelSetAttribute(attribute::max_dynamic_shared_bytes,
                                      static_cast<int>(shared_bytes), handle, handle_),
        kernel->name + ": asking for " + std::to_string(shared_bytes) + " bytes of shared memory");
  }
  // Code is brought to the GPU lazily; asking for the function does it now, not within a capture.
  FunctionHandle function = nullptr;
  driver_->check(driver_->cuKernelGetFunction(&function, handle), "loading " + kernel->name);
  // A launch takes the handle of a kernel in place of a function: it works in every context.
  kernel->function = reinterpret_cast<FunctionHandle>(handle);
  return kernel;
}

void Device::launch(const LoadedKernel& kernel, const Launch& launch, StreamHandle stream,
                    std::span<void* const> arguments) const {
  LaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (launch.cluster > 1) {
    attributes[count].id = LaunchAttribute::cluster_dimension;
    attributes[count].value[0] = static_cast<std::uint32_t>(launch.cluster);
    attributes[count].value[1] = attributes[count].value[2] = 1;
    ++count;
  }
  if (launch.overlap_previous) {
    attributes[count].id = LaunchAttribute::programmatic_stream_serialization;
    attributes[count++].value[0] = 1;
  }
  const LaunchConfig config{
      {static_cast<unsigned>(launch.grid[0]), static_cast<unsigned>(launch.grid[1]),
       static_cast<unsigned>(launch.grid[2])},
      {static_cast<unsigned>(launch.threads), 1, 1},
      static_cast<unsigned>(launch.shared_bytes),
      stream,
      attributes,
      count};
  const Result result = driver_->cuLaunchKernelEx(&config, kernel.function,
                                                  const_cast<void**>(arguments.data()), nullptr);
  if (result != code::success) driver_->check(result, "launch of " + kernel.name);
}

Place Device::place_of(const void* address, const char* argument) const {
  unsigned type = 0;
  int ordinal = -1;
  int attributes[] = {attribute::memory_type, attribute::device_ordinal};
  void* values[] = {&type, &ordinal};
  const Result result = driver_->cuPointerGetAttributes(2, attributes, values,
                                                        reinterpret_cast<DeviceAddress>(address));
  if (result == code::invalid_value) return Place::host;  // memory the driver knows nothing of
  if (result != code::success) driver_->check(result, "cuPointerGetAttributes");
  if (type != attribute::memory_type_device) return Place::host;
  if (ordinal == ordinal_) return Place::device;
  throw Error(Code::invalid_argument, std::string(argument) + ".data: must be host memory or of " +
                                          device_name(ordinal_) + ", is memory of " +
                                          device_name(ordinal));
}

bool Device::is_capturing(StreamHandle stream) const {
  int status = 0;
  driver_->check(driver_->cuStreamIsCapturing(stream, &status), "cuStreamIsCapturing");
  return status != 0;
}

std::uint64_t Device::number_of(StreamHandle stream) const {
  unsigned long long number = 0;
  driver_->check(driver_->cuStreamGetId(stream, &number), "cuStreamGetId");
  return number;
}

std::unique_ptr<Device::StreamMemory> Device::zeros(std::int64_t bytes) {
  const Current current(*this, true);
  const CaptureRelaxed relaxed(*driver_);
  const StreamHandle stream = take_stream();
  auto memory = std::make_unique<StreamMemory>(*this, static_cast<std::size_t>(bytes), stream);
  driver_->check(
      driver_->cuMemsetD32Async(memory->address(), 0, static_cast<std::size_t>(bytes) / 4, stream),
      "cuMemsetD32Async");
  driver_->check(driver_->cuStreamSynchronize(stream), "cuStreamSynchronize");
  return memory;  // the stream stays with it
}

void* Device::host_word() const {
  const Current current(*this, true);
  const CaptureRelaxed relaxed(*driver_);
  void* word = nullptr;
  driver_->check(driver_->cuMemHostAlloc(&word, sizeof(std::uint64_t),
                                         host_memory_portable | host_memory_mapped),
                 "cuMemHostAlloc");
  return word;
}

StreamHandle Device::take_stream() {
  {
    const std::lock_guard lock(mutex_);
    if (!streams_.empty()) {
      const StreamHandle stream = streams_.back();
      streams_.pop_back();
      return stream;
    }
  }
  StreamHandle stream = nullptr;
  driver_->check(driver_->cuStreamCreate(&stream, stream_non_blocking), "cuStreamCreate");
  return stream;
}

void Device::give_stream(StreamHandle stream) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    streams_.push_back(stream);
  } catch (const std::bad_alloc&) {
    driver_->cuStreamDestroy(stream);
  }
}

}  // namespace ingot::cuda
