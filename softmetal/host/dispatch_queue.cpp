// libdispatch, as far as a compute program needs it: see dispatch/dispatch.h.
#include "dispatch_queue.hpp"

#include <dispatch/dispatch.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <vector>

#include "block.hpp"

struct dispatch_object_s {
  virtual ~dispatch_object_s() = default;
  std::atomic<int> references{1};
};
struct dispatch_queue_s : dispatch_object_s {
  std::shared_ptr<softmetal::SerialThread> thread = std::make_shared<softmetal::SerialThread>();
};
struct dispatch_data_s : dispatch_object_s {
  std::vector<std::byte> bytes;
};
struct dispatch_semaphore_s : dispatch_object_s {
  std::mutex mutex;
  std::condition_variable changed;
  intptr_t value = 0;
};

namespace {

uint64_t now_in_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * NSEC_PER_SEC + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

namespace softmetal {

std::shared_ptr<SerialThread> thread_of_queue(void* queue) {
  return queue != nullptr ? static_cast<dispatch_queue_s*>(queue)->thread
                          : std::make_shared<SerialThread>();
}

std::string bytes_of_data(void* data) {
  if (data == nullptr) {
    return {};
  }
  const auto& bytes = static_cast<dispatch_data_s*>(data)->bytes;
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace softmetal

dispatch_time_t dispatch_time(dispatch_time_t when, int64_t nanoseconds) {
  if (when == DISPATCH_TIME_FOREVER) {
    return when;
  }
  const uint64_t base = when == DISPATCH_TIME_NOW ? now_in_nanoseconds() : when;
  return base + static_cast<uint64_t>(nanoseconds);
}

dispatch_semaphore_t dispatch_semaphore_create(intptr_t value) {
  auto* semaphore = new dispatch_semaphore_s;
  semaphore->value = value;
  return semaphore;
}

intptr_t dispatch_semaphore_wait(dispatch_semaphore_t semaphore, dispatch_time_t timeout) {
  std::unique_lock lock(semaphore->mutex);
  const auto available = [semaphore] { return semaphore->value > 0; };
  if (timeout == DISPATCH_TIME_FOREVER) {
    semaphore->changed.wait(lock, available);
  } else {
    const uint64_t now = now_in_nanoseconds();
    const std::chrono::nanoseconds left(timeout > now ? timeout - now : 0);
    if (!semaphore->changed.wait_for(lock, left, available)) {
      return 1;
    }
  }
  --semaphore->value;
  return 0;
}

intptr_t dispatch_semaphore_signal(dispatch_semaphore_t semaphore) {
  const std::lock_guard lock(semaphore->mutex);
  ++semaphore->value;
  semaphore->changed.notify_one();
  return semaphore->value <= 0 ? 1 : 0;
}

dispatch_data_t dispatch_data_create(const void* buffer, size_t size, dispatch_queue_t,
                                     dispatch_block_t destructor) {
  auto* data = new dispatch_data_s;
  data->bytes.resize(size);
  std::memcpy(data->bytes.data(), buffer, size);
  if (destructor != nullptr) {
    destructor();
  }
  return data;
}

size_t dispatch_data_get_size(dispatch_data_t data) { return data->bytes.size(); }

dispatch_queue_t dispatch_queue_create(const char*, dispatch_queue_attr_t) {
  return new dispatch_queue_s;
}

void dispatch_async(dispatch_queue_t queue, dispatch_block_t block) {
  softmetal::Block<> copy(reinterpret_cast<void*>(block));
  queue->thread->post([copy] { copy(); });
}

void dispatch_sync(dispatch_queue_t queue, dispatch_block_t block) {
  dispatch_semaphore_t done = dispatch_semaphore_create(0);
  dispatch_async(queue, ^{
    block();
    dispatch_semaphore_signal(done);
  });
  dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
  dispatch_release(done);
}

void dispatch_retain(void* object) { ++static_cast<dispatch_object_s*>(object)->references; }

void dispatch_release(void* object) {
  auto* counted = static_cast<dispatch_object_s*>(object);
  if (--counted->references == 0) {
    delete counted;
  }
}
