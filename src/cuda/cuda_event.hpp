// The end of a call, and the time it took on the GPU.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "core/problem.hpp"
#include "cuda/cuda_device.hpp"
#include "cuda/host_tensors.hpp"

namespace ingot::cuda {

/// A stream of ingot's own, for one call.
class OwnStream {
 public:
  explicit OwnStream(Device& device) : device_(device), stream_(device.take_stream()) {}
  ~OwnStream() { device_.give_stream(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  StreamHandle get() const { return stream_; }

 private:
  Device& device_;
  StreamHandle stream_;
};

/// Two marks on a stream, with the time between them.
class Marks {
 public:
  Marks(const Device& device, StreamHandle stream) : driver_(device.driver()), stream_(stream) {
    driver_.check(driver_.cuEventCreate(&begin_, event_with_time), "cuEventCreate");
    const Result result = driver_.cuEventCreate(&end_, event_with_time);
    if (result != code::success) driver_.cuEventDestroy(begin_);
    driver_.check(result, "cuEventCreate");
  }
  ~Marks() {
    driver_.cuEventDestroy(begin_);
    driver_.cuEventDestroy(end_);
  }
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  void begin() { driver_.check(driver_.cuEventRecord(begin_, stream_), "cuEventRecord"); }
  void end() { driver_.check(driver_.cuEventRecord(end_, stream_), "cuEventRecord"); }
  bool passed() const {
    const Result result = driver_.cuEventQuery(end_);
    if (result == code::not_ready) return false;
    driver_.check(result, "the call");
    return true;
  }
  void wait() const { driver_.check(driver_.cuEventSynchronize(end_), "the call"); }
  double seconds() const {
    float milliseconds = 0;
    driver_.check(driver_.cuEventElapsedTime(&milliseconds, begin_, end_), "cuEventElapsedTime");
    return static_cast<double>(milliseconds) / 1e3;
  }

 private:
  const Driver& driver_;
  StreamHandle stream_;
  EventHandle begin_ = nullptr, end_ = nullptr;
};

/// For what is given back without a word: where the context cannot be had, the driver refuses to
/// take it, and nothing is thrown.
class CurrentIfPossible {
 public:
  CurrentIfPossible(const Device& device, bool own) noexcept {
    try {
      current_.emplace(device, own);
    } catch (...) {
      return;
    }
  }

 private:
  std::optional<Device::Current> current_;
};

class DeviceEvent final : public Event {
 public:
  DeviceEvent(const Device& device, StreamHandle stream)
      : device_(device), marks_(std::make_unique<Marks>(device, stream)) {}
  ~DeviceEvent() override {
    const CurrentIfPossible current(device_, false);
    marks_.reset();
  }
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;
  Marks& marks() { return *marks_; }

  bool done() override {
    const Device::Current current(device_);
    return marks_->passed();
  }
  void wait() override {
    const Device::Current current(device_);
    marks_->wait();
    device_.faults().report();
  }
  double seconds() override {
    const Device::Current current(device_);
    return marks_->seconds();
  }

 private:
  const Device& device_;
  std::unique_ptr<Marks> marks_;
};

/// A call with tensors in host memory: what it copied, and its stream. All of it in the device's
/// primary context. The first wait() brings the outputs.
class HostEvent final : public Event {
 public:
  explicit HostEvent(Device& device) : device_(device) {
    const Device::Current current(device_, true);
    stream_ = std::make_unique<OwnStream>(device);
    marks_ = std::make_unique<Marks>(device, stream_->get());
    tensors_ = std::make_unique<HostTensors>(device, stream_->get());
  }
  ~HostEvent() override {
    const CurrentIfPossible current(device_, true);
    tensors_.reset();
    marks_.reset();
    stream_.reset();
  }
  HostEvent(const HostEvent&) = delete;
  HostEvent& operator=(const HostEvent&) = delete;

  StreamHandle stream() const { return stream_->get(); }
  HostTensors& tensors() { return *tensors_; }
  Marks& marks() { return *marks_; }

  bool done() override {
    const Device::Current current(device_, true);
    return marks_->passed();
  }
  void wait() override {
    if (waited_) return;
    const Device::Current current(device_, true);
    tensors_->finish();
    waited_ = true;  // else the next wait tries again, or throws the same
    device_.faults().report();
  }
  double seconds() override {
    const Device::Current current(device_, true);
    return marks_->seconds();
  }

 private:
  Device& device_;
  std::unique_ptr<OwnStream> stream_;
  std::unique_ptr<Marks> marks_;
  std::unique_ptr<HostTensors> tensors_;
  bool waited_ = false;
};

}  // namespace ingot::cuda
