#include "cuda/faults.hpp"

#include "core/error.hpp"
#include "cuda/cuda_device.hpp"

namespace ingot::cuda {

Faults::~Faults() {
  if (words_.told == nullptr) return;
  const Device::Current current(device_, true);
  seen_memory_.reset();
  device_.driver().cuMemFreeHost(words_.told);
}

void Faults::make() {
  const std::lock_guard lock(mutex_);
  if (made_.load(std::memory_order_relaxed)) return;
  std::shared_ptr<Device::StreamMemory> seen = device_.zeros(sizeof(unsigned));
  void* told = device_.host_word();
  *static_cast<unsigned*>(told) = 0;
  words_ = {reinterpret_cast<unsigned*>(seen->data()), static_cast<unsigned*>(told)};
  seen_memory_ = std::move(seen);
  made_.store(true, std::memory_order_release);
}

FaultWords Faults::words() {
  if (!made_.load(std::memory_order_acquire)) make();
  return words_;
}

void Faults::clear() const {
  const Device::Current current(device_, true);
  const Driver& driver = device_.driver();
  const StreamHandle stream = device_.take_stream();
  driver.cuMemsetD32Async(reinterpret_cast<DeviceAddress>(words_.seen), 0, 1, stream);
  driver.cuStreamSynchronize(stream);
  device_.give_stream(stream);
}

void Faults::report() {
  if (!made_.load(std::memory_order_acquire)) return;
  if (std::atomic_ref<unsigned>(*words_.told).exchange(0) == 0) return;
  clear();
  throw Error(
      Code::device_error,
      "cuda:" + std::to_string(device_.ordinal()) +
          ": a kernel waited in vain for another part of itself; outputs of this call, or of "
          "one before it, are NaN");
}

}  // namespace ingot::cuda
