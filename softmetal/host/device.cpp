#include "device.hpp"

#include <ctime>
#include <mutex>

#include "runtime.hpp"

namespace softmetal {
namespace {

std::mutex shared_mutex;
Device* shared_device = nullptr;

class Architecture : public Object {
 public:
  explicit Architecture(Ref<String> name = {}) : name_(std::move(name)) {}
  String* name() const { return name_.get(); }

 private:
  Ref<String> name_;
};

constexpr std::int64_t family_mac2 = 2002;
constexpr std::int64_t family_metal3 = 5001;
constexpr std::int64_t family_metal4 = 5002;

bool supports_family(const Device& self, std::int64_t family) {
  if (family > 1000 && family < 2000) {
    return family - 1000 <= self.profile().apple_family;
  }
  if (family == family_metal3) {
    return OsVersion{13, 0} <= os_version();
  }
  if (family == family_metal4) {
    return OsVersion{26, 0} <= os_version();
  }
  const bool common = family >= 3001 && family <= 3003;
  return common || family == family_mac2 || family == family_mac2 - 1;
}

Ref<Architecture> architecture(const Device& self) {
  return make<Architecture>(make_string(self.profile().architecture));
}
std::uint64_t max_buffer_length(const Device& self) { return self.profile().max_buffer(); }
std::uint64_t working_set(const Device& self) { return self.profile().working_set(); }
std::uint64_t max_threadgroup_memory(const Device&) { return max_threadgroup_bytes; }
Extent max_threads(const Device&) {
  return {max_threads_per_threadgroup, max_threads_per_threadgroup, max_threads_per_threadgroup};
}
std::uint64_t registry_id(const Device&) { return 0x100000001; }
bool yes(const Device&) { return true; }
bool no(const Device&) { return false; }
std::uint64_t zero(const Device&) { return 0; }
std::uint64_t argument_tier_2(const Device&) { return 1; }
std::uint64_t concurrent_compilations(const Device&) { return 2; }
std::uint64_t timestamp_frequency(const Device&) { return 1'000'000'000; }
void ignore_flag(const Device&, bool) {}

bool supports_counter_sampling(const Device&, std::uint64_t point) { return point == 0; }

void sample_timestamps(const Device&, void* cpu, void* gpu) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const auto nanoseconds = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                           static_cast<std::uint64_t>(now.tv_nsec);
  *static_cast<std::uint64_t*>(cpu) = nanoseconds;
  *static_cast<std::uint64_t*>(gpu) = nanoseconds;
}

}  // namespace

Device::~Device() {
  const std::lock_guard lock(shared_mutex);
  if (shared_device == this) {
    shared_device = nullptr;
  }
}

Ref<Device> Device::shared() {
  const std::lock_guard lock(shared_mutex);
  if (shared_device == nullptr ||
      shared_device->client_count() + shared_device->held_count() == 0) {
    Ref<Device> made = make<Device>();
    shared_device = made.get();
    return made;
  }
  return shared_device;
}

bool Device::reserve(std::uint64_t bytes) {
  if (allocated_.fetch_add(bytes) + bytes > profile_.working_set()) {
    allocated_ -= bytes;
    return false;
  }
  return true;
}

void define_device() {
  Definition<Architecture>("MTLArchitecture", class_of<Object>).method<&Architecture::name>("name");
  Definition<Device>("MTLDevice", class_of<Object>)
      .method<&Device::name>("name")
      .method<&architecture>("architecture", {14, 0})
      .method<&supports_family>("supportsFamily:", {10, 15})
      .method<&max_buffer_length>("maxBufferLength", {10, 14})
      .method<&working_set>("recommendedMaxWorkingSetSize", {10, 12})
      .method<&max_threadgroup_memory>("maxThreadgroupMemoryLength", {10, 13})
      .method<&max_threads>("maxThreadsPerThreadgroup")
      .method<&Device::allocated>("currentAllocatedSize", {10, 13})
      .method<&registry_id>("registryID", {10, 13})
      .method<&yes>("hasUnifiedMemory", {10, 15})
      .method<&no>("isLowPower")
      .method<&no>("isHeadless")
      .method<&no>("isRemovable", {10, 13})
      .method<&zero>("location", {10, 15})
      .method<&zero>("locationNumber", {10, 15})
      .method<&zero>("maxTransferRate", {10, 15})
      .method<&argument_tier_2>("argumentBuffersSupport", {10, 13})
      .method<&concurrent_compilations>("maximumConcurrentCompilationTaskCount", {13, 3})
      .method<&yes>("shouldMaximizeConcurrentCompilation", {13, 3})
      .method<&ignore_flag>("setShouldMaximizeConcurrentCompilation:", {13, 3})
      .method<&yes>("supportsRaytracing", {11, 0})
      .method<&yes>("supportsDynamicLibraries", {11, 0})
      .method<&yes>("supportsFunctionPointers", {11, 0})
      .method<&supports_counter_sampling>("supportsCounterSampling:", {11, 0})
      .method<&timestamp_frequency>("queryTimestampFrequency", {26, 0})
      .method<&sample_timestamps>("sampleTimestamps:gpuTimestamp:", {10, 15});
}

}  // namespace softmetal

using namespace softmetal;

extern "C" {
void* MTLCreateSystemDefaultDevice();
void* MTLCopyAllDevices();
void* MTLCopyAllDevicesWithObserver(void** observer, void* handler);
void MTLRemoveDeviceObserver(const void* observer);
}

void* MTLCreateSystemDefaultDevice() {
  Device* device = Device::shared().detach();
  device->hold_to_client();
  return device;
}

void* MTLCopyAllDevices() {
  Array* devices = make<Array>(Array::Items{Device::shared()}).detach();
  devices->hold_to_client();
  return devices;
}

// The device never comes or goes, so there is nothing to observe.
void* MTLCopyAllDevicesWithObserver(void** observer, void*) {
  *observer = nullptr;
  return MTLCopyAllDevices();
}

void MTLRemoveDeviceObserver(const void*) {}
