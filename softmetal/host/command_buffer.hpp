// MTLCommandQueue and MTLCommandBuffer.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "block.hpp"
#include "device.hpp"
#include "hazard.hpp"
#include "residency.hpp"
#include "serial_thread.hpp"

namespace softmetal {

class CommandBuffer;
class CommandEncoder;

enum class CommandStatus : std::uint64_t {
  not_enqueued = 0,
  enqueued = 1,
  committed = 2,
  scheduled = 3,
  completed = 4,
  error = 5,
};

// MTLCommandBufferError.
enum class CommandError : std::int64_t {
  internal = 1,
  timeout = 2,
  page_fault = 3,
  out_of_memory = 8,
  invalid_resource = 9,
};

class CommandQueue : public Object {
 public:
  CommandQueue(Ref<Device> device, std::uint64_t limit)
      : device_(std::move(device)), limit_(limit) {}
  std::string label_text() const override { return value_of(label.get()); }
  Device* device() const { return device_.get(); }
  Ref<CommandBuffer> new_command_buffer(bool retains);

  // The order of execution is that of enqueueing; a buffer runs when all before it have.
  void enqueue(CommandBuffer& buffer);
  void run_what_is_committed();
  void one_finished();  // a command buffer completed, or was dropped without being committed
  void one_committed();
  SerialThread& completions() { return completions_; }

  Ref<String> label;
  std::vector<Ref<ResidencySet>> residency_sets;

 private:
  void wait_for_room();
  Ref<Device> device_;
  const std::uint64_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Ref<CommandBuffer>> order_;
  std::uint64_t alive_ = 0;
  std::uint64_t in_flight_ = 0;
  SerialThread executor_;
  SerialThread completions_;
};

// What running a command buffer has come to.
struct Execution {
  EncoderOrder order;                        // of the encoder that runs
  std::unordered_set<std::uint64_t> passes;  // of this command buffer so far
  std::vector<Ref<ResidencySet>> residency_sets;
  std::optional<CommandError> failure;
  std::string failure_text;
  void fail(CommandError error, std::string what);
};

// A pass of an encoder, or an event.
class Step {
 public:
  virtual ~Step() = default;
  virtual void run(Execution& execution) = 0;
};

class CommandBuffer : public Object {
 public:
  CommandBuffer(Ref<CommandQueue> queue, bool retains);
  ~CommandBuffer() override;
  std::string label_text() const override { return value_of(label.get()); }
  std::string complaint_at_end() const override;
  Device* device() const { return queue_->device(); }
  CommandQueue* queue() const { return queue_.get(); }
  bool retains() const { return retains_; }

  // Encoding. `can_encode` reports what forbids it.
  bool can_encode(const char* what) const;
  void encoder_opened(CommandEncoder& encoder) { open_encoder_ = &encoder; }
  void encoder_closed() { open_encoder_ = nullptr; }
  void add_step(std::unique_ptr<Step> step) { steps_.push_back(std::move(step)); }

  void enqueue();
  void commit();
  void wait_until_completed();
  void wait_until_scheduled();
  void add_completed_handler(Block<void*> handler);
  void add_scheduled_handler(Block<void*> handler);
  void execute();  // on the queue's thread

  CommandStatus status() const;
  Error* error() const;
  double gpu_start() const { return times(gpu_start_); }
  double gpu_end() const { return times(gpu_end_); }
  double kernel_start() const { return times(kernel_start_); }
  double kernel_end() const { return times(kernel_end_); }

  Ref<String> label;
  std::vector<Ref<ResidencySet>> residency_sets;

 private:
  void set_status(CommandStatus status);
  void run_steps(Execution& execution);
  void finish(const Execution& execution);
  void run_handlers();  // on the completions thread
  void handlers_are_done();
  bool before_commit(const char* what) const;
  double times(const double& field) const;

  Ref<CommandQueue> queue_;
  const bool retains_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  CommandStatus status_ = CommandStatus::not_enqueued;
  CommandStatus outcome_ = CommandStatus::completed;
  bool handlers_done_ = false;
  CommandEncoder* open_encoder_ = nullptr;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Block<void*>> completed_handlers_;
  std::vector<Block<void*>> scheduled_handlers_;
  Ref<Error> error_;
  std::uint64_t committed_at_ = 0;
  std::shared_ptr<std::atomic<std::uint64_t>> completed_at_;
  double gpu_start_ = 0;
  double gpu_end_ = 0;
  double kernel_start_ = 0;
  double kernel_end_ = 0;
};

// What compute and blit encoders share.
class CommandEncoder : public Object {
 public:
  explicit CommandEncoder(Ref<CommandBuffer> buffer) : buffer_(std::move(buffer)) {
    buffer_->encoder_opened(*this);
  }
  ~CommandEncoder() override;
  std::string label_text() const override { return value_of(label.get()); }
  Device* device() const { return buffer_->device(); }
  void end_encoding();
  void push_group(String*) { ++groups_; }
  void pop_group();
  void signpost(String*) {}
  CommandBuffer& buffer() const { return *buffer_; }
  Ref<String> label;

 protected:
  // False, and a finding, behind endEncoding.
  bool encoding() const;

 private:
  Ref<CommandBuffer> buffer_;
  bool ended_ = false;
  int groups_ = 0;
};

}  // namespace softmetal
