#include "event.hpp"

#include <chrono>

#include "command_buffer.hpp"
#include "dispatch_queue.hpp"
#include "lifetime.hpp"
#include "residency.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

std::uint64_t gpu_wait_milliseconds() {
  return environment_number("SOFTMETAL_EVENT_TIMEOUT_MS", 30000);
}

struct SignalStep : Step {
  SignalStep(Ref<Event> event, std::uint64_t value) : event(std::move(event)), value(value) {}
  void run(Execution& execution) override {
    auto behind = execution.order.behind;
    behind.insert(execution.passes.begin(), execution.passes.end());
    event->signal(value, behind);
  }
  Ref<Event> event;
  std::uint64_t value;
};

struct WaitStep : Step {
  WaitStep(Ref<Event> event, std::uint64_t value) : event(std::move(event)), value(value) {}
  void run(Execution& execution) override {
    if (!event->wait(value, gpu_wait_milliseconds())) {
      const std::string what = text("a command buffer waits for ", event->name_for_findings(),
                                    " to reach ", value, ", but it stays at ", event->value());
      error("event-never-signalled", what);
      execution.fail(CommandError::timeout, what);
    }
    execution.order.behind.merge(event->behind());
  }
  Ref<Event> event;
  std::uint64_t value;
};

void encode_signal(CommandBuffer& self, Event* event, std::uint64_t value) {
  if (self.can_encode("encodeSignalEvent") && event != nullptr) {
    self.add_step(std::make_unique<SignalStep>(event, value));
  }
}

void encode_wait(CommandBuffer& self, Event* event, std::uint64_t value) {
  if (self.can_encode("encodeWaitForEvent") && event != nullptr) {
    self.add_step(std::make_unique<WaitStep>(event, value));
  }
}

class SharedEventHandle : public Object {
 public:
  explicit SharedEventHandle(Ref<SharedEvent> event = {}) : event_(std::move(event)) {}
  SharedEvent* event() const { return event_.get(); }
  String* label() const { return event_->label.get(); }

 private:
  Ref<SharedEvent> event_;
};

Ref<SharedEventHandle> new_handle(SharedEvent& self) { return make<SharedEventHandle>(&self); }
Ref<SharedEvent> event_of_handle(Device&, SharedEventHandle* handle) {
  return handle != nullptr ? handle->event() : nullptr;
}

template <class T>
Ref<T> new_synchroniser(Device& device) {
  return make<T>(&device);
}

void init_with_queue(EventListener& self, void* queue) { self.use_queue(queue); }

EventListener* shared_listener() {
  static EventListener* const listener = [] {
    EventListener* made = make<EventListener>().detach();
    made->immortal = true;
    return made;
  }();
  return listener;
}

}  // namespace

void EventListener::use_queue(void* queue) { thread_ = thread_of_queue(queue); }

std::uint64_t Event::value() const {
  const std::lock_guard lock(mutex_);
  return value_;
}

std::unordered_set<std::uint64_t> Event::behind() const {
  const std::lock_guard lock(mutex_);
  return behind_;
}

void Event::signal(std::uint64_t value, const std::unordered_set<std::uint64_t>& behind) {
  std::vector<std::function<void()>> due;
  {
    const std::lock_guard lock(mutex_);
    value_ = std::max(value_, value);
    behind_.insert(behind.begin(), behind.end());
    std::erase_if(waiting_, [&](auto& entry) {
      if (entry.first > value_) {
        return false;
      }
      due.push_back(std::move(entry.second));
      return true;
    });
    changed_.notify_all();
  }
  for (const auto& task : due) {
    task();
  }
}

bool Event::wait(std::uint64_t value, std::uint64_t milliseconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::milliseconds(milliseconds),
                           [&] { return value_ >= value; });
}

void Event::when(std::uint64_t value, std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (value_ < value) {
      waiting_.emplace_back(value, std::move(task));
      return;
    }
  }
  task();
}

void SharedEvent::set_value(std::uint64_t value) {
  if (value < this->value()) {
    error("event-value", text(current_message(), ": ", name_for_findings(),
                              " must not go back from ", this->value(), " to ", value));
    return;
  }
  signal(value, {});
}

void SharedEvent::notify(EventListener* listener, std::uint64_t value,
                         Block<void*, std::uint64_t> block) {
  if (listener == nullptr || !block) {
    error("null-argument", text(current_message(), ": listener and block must not be nil"));
    return;
  }
  when(value, [self = Ref<SharedEvent>(this), listener = Ref<EventListener>(listener),
               block = std::move(block)] {
    listener->post([self, block] {
      const PoolScope pool;
      block(self.get(), self->value());
    });
  });
}

void define_synchronisation() {
  Definition<Synchroniser>("MTLSynchroniser", class_of<Object>)
      .property<&Synchroniser::label>("label")
      .method<&Synchroniser::device>("device");
  Definition<Fence>("MTLFence", class_of<Synchroniser>);
  Definition<Event>("MTLEvent", class_of<Synchroniser>);
  Definition<SharedEvent>("MTLSharedEvent", class_of<Event>)
      .method<&SharedEvent::value>("signaledValue", {10, 14})
      .method<&SharedEvent::set_value>("setSignaledValue:", {10, 14})
      .method<&SharedEvent::wait>("waitUntilSignaledValue:timeoutMS:", {12, 0})
      .method<&SharedEvent::notify>("notifyListener:atValue:block:", {10, 14})
      .method<&new_handle>("newSharedEventHandle", {10, 14});
  Definition<SharedEventHandle>("MTLSharedEventHandle", class_of<Object>)
      .method<&SharedEventHandle::label>("label", {10, 14});
  Definition<EventListener>("MTLSharedEventListener", class_of<Object>)
      .allocatable()
      .initialiser<&init_with_queue>("initWithDispatchQueue:", {10, 14})
      .class_method<&shared_listener>("sharedListener", {14, 0});
  Definition<Device>()
      .method<&new_synchroniser<Fence>>("newFence", {10, 13})
      .method<&new_synchroniser<Event>>("newEvent", {10, 14})
      .method<&new_synchroniser<SharedEvent>>("newSharedEvent", {10, 14})
      .method<&event_of_handle>("newSharedEventWithHandle:", {10, 14});
  Definition<CommandBuffer>()
      .method<&encode_signal>("encodeSignalEvent:value:", {10, 14})
      .method<&encode_wait>("encodeWaitForEvent:value:", {10, 14});
  define_residency();
}

}  // namespace softmetal
