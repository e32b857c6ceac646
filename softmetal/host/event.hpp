// MTLEvent, MTLSharedEvent and MTLFence.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "block.hpp"
#include "device.hpp"
#include "serial_thread.hpp"

namespace softmetal {

// A fence or event of a device, with what it vouches for.
class Synchroniser : public Object {
 public:
  explicit Synchroniser(Ref<Device> device) : device_(std::move(device)) {}
  std::string label_text() const override { return value_of(label.get()); }
  Device* device() const { return device_.get(); }
  Ref<String> label;

 private:
  Ref<Device> device_;
};

class Fence : public Synchroniser {
 public:
  using Synchroniser::Synchroniser;
  std::unordered_set<std::uint64_t> behind;  // encoders that updated it, and theirs
  std::mutex mutex;
  bool updated = false;
};

class EventListener : public Object {
 public:
  EventListener() : thread_(std::make_shared<SerialThread>()) {}
  void use_queue(void* queue);
  void post(std::function<void()> task) { thread_->post(std::move(task)); }

 private:
  std::shared_ptr<SerialThread> thread_;
};

class Event : public Synchroniser {
 public:
  using Synchroniser::Synchroniser;
  std::uint64_t value() const;
  // From the GPU; `behind` are the encoders that this signal follows.
  void signal(std::uint64_t value, const std::unordered_set<std::uint64_t>& behind);
  // True when the value came within the time.
  bool wait(std::uint64_t value, std::uint64_t milliseconds);
  // What the signals so far vouch for.
  std::unordered_set<std::uint64_t> behind() const;
  void when(std::uint64_t value, std::function<void()> task);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t value_ = 0;
  std::unordered_set<std::uint64_t> behind_;
  std::vector<std::pair<std::uint64_t, std::function<void()>>> waiting_;
};

class SharedEvent : public Event {
 public:
  using Event::Event;
  void set_value(std::uint64_t value);
  void notify(EventListener* listener, std::uint64_t value, Block<void*, std::uint64_t> block);
};

}  // namespace softmetal
