#include "command_buffer.hpp"

#include <ctime>

#include "inject.hpp"
#include "lifetime.hpp"
#include "residency.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr const char* command_error_domain = "MTLCommandBufferErrorDomain";

thread_local const CommandBuffer* handled_buffer = nullptr;  // whose handlers run on this thread

double now_in_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

const char* status_name(CommandStatus status) {
  constexpr const char* names[] = {"not enqueued", "enqueued",  "committed",
                                   "scheduled",    "completed", "ended in an error"};
  return names[static_cast<std::size_t>(status)];
}

}  // namespace

void Execution::fail(CommandError error, std::string what) {
  if (!failure) {
    failure = error;
    failure_text = std::move(what);
  }
}

CommandBuffer::CommandBuffer(Ref<CommandQueue> queue, bool retains)
    : queue_(std::move(queue)),
      retains_(retains),
      completed_at_(std::make_shared<std::atomic<std::uint64_t>>(0)) {}

CommandBuffer::~CommandBuffer() {
  if (status_ < CommandStatus::committed) {
    queue_->one_finished();
  }
}

std::string CommandBuffer::complaint_at_end() const {
  return status() != CommandStatus::enqueued
             ? std::string()
             : name_for_findings() + " was enqueued and never committed: all behind it waits";
}

void CommandBuffer::set_status(CommandStatus status) {
  const std::lock_guard lock(mutex_);
  status_ = status;
  changed_.notify_all();
}

CommandStatus CommandBuffer::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

Error* CommandBuffer::error() const {
  const std::lock_guard lock(mutex_);
  return error_.get();
}

double CommandBuffer::times(const double& field) const {
  const std::lock_guard lock(mutex_);
  return field;
}

bool CommandBuffer::before_commit(const char* what) const {
  const CommandStatus now = status();
  if (now < CommandStatus::committed) {
    return true;
  }
  softmetal::error("command-buffer-state",
                   text(current_message(), ": ", what, " must come before commit, but ",
                        name_for_findings(), " is ", status_name(now)));
  return false;
}

bool CommandBuffer::can_encode(const char* what) const {
  if (!before_commit(what)) {
    return false;
  }
  if (open_encoder_ != nullptr) {
    softmetal::error("encoder-open",
                     text(current_message(), ": ", name_for_findings(),
                          " still has an open encoder, ", open_encoder_->name_for_findings()));
    return false;
  }
  return true;
}

void CommandBuffer::enqueue() {
  if (before_commit("enqueue") && status() == CommandStatus::not_enqueued) {
    set_status(CommandStatus::enqueued);
    queue_->enqueue(*this);
  }
}

void CommandBuffer::commit() {
  if (!can_encode("commit")) {
    return;
  }
  enqueue();
  committed_at_ = next_moment();
  set_status(CommandStatus::committed);
  queue_->one_committed();
  queue_->run_what_is_committed();
}

void CommandBuffer::add_completed_handler(Block<void*> handler) {
  if (before_commit("addCompletedHandler")) {
    completed_handlers_.push_back(std::move(handler));
  }
}

void CommandBuffer::add_scheduled_handler(Block<void*> handler) {
  if (before_commit("addScheduledHandler")) {
    scheduled_handlers_.push_back(std::move(handler));
  }
}

void CommandBuffer::wait_until_completed() {
  std::unique_lock lock(mutex_);
  if (status_ < CommandStatus::committed || handled_buffer == this) {
    lock.unlock();
    softmetal::error(
        "wait-never-ends",
        text(current_message(), ": ", name_for_findings(),
             handled_buffer == this ? " waits inside its own handler" : " was never committed"));
    return;
  }
  changed_.wait(lock, [this] { return handlers_done_; });
}

void CommandBuffer::wait_until_scheduled() {
  std::unique_lock lock(mutex_);
  if (status_ < CommandStatus::committed) {
    lock.unlock();
    softmetal::error("wait-never-ends",
                     text(current_message(), ": ", name_for_findings(), " was never committed"));
    return;
  }
  changed_.wait(lock, [this] { return status_ >= CommandStatus::scheduled; });
}

void CommandBuffer::run_steps(Execution& execution) {
  constexpr std::pair<Failure, CommandError> injections[] = {
      {Failure::device_error, CommandError::page_fault},
      {Failure::gpu_out_of_memory, CommandError::out_of_memory},
      {Failure::timeout, CommandError::timeout}};
  for (const auto& [failure, error] : injections) {
    if (fails_now(failure)) {
      execution.fail(error, "injected failure");
    }
  }
  for (const auto& step : steps_) {
    if (!execution.failure) {
      step->run(execution);
    }
  }
}

void CommandBuffer::execute() {
  const double start = now_in_seconds();
  {
    const PoolScope pool;
    set_status(CommandStatus::scheduled);
    for (const auto& handler : scheduled_handlers_) {
      handler(this);
    }
  }
  Execution execution;
  execution.order.committed_at = committed_at_;
  execution.order.completed_at = completed_at_;
  execution.residency_sets = residency_sets;
  execution.residency_sets.insert(execution.residency_sets.end(), queue_->residency_sets.begin(),
                                  queue_->residency_sets.end());
  const double gpu_start = now_in_seconds();
  run_steps(execution);
  {
    const std::lock_guard lock(mutex_);
    kernel_start_ = start;
    kernel_end_ = gpu_start;
    gpu_start_ = gpu_start;
    gpu_end_ = now_in_seconds();
  }
  finish(execution);
}

void CommandBuffer::finish(const Execution& execution) {
  steps_.clear();  // gives back what the commands held
  if (execution.failure) {
    Ref<Error> error =
        make_error(command_error_domain, static_cast<std::int64_t>(*execution.failure),
                   execution.failure_text);
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    outcome_ = CommandStatus::error;
  }
  completed_at_->store(next_moment());
  set_status(outcome_);
  queue_->one_finished();
  if (completed_handlers_.empty()) {
    handlers_are_done();
  } else {
    queue_->completions().post([self = Ref<CommandBuffer>(this)] { self->run_handlers(); });
  }
}

void CommandBuffer::run_handlers() {
  {
    const PoolScope pool;
    handled_buffer = this;
    for (const auto& handler : completed_handlers_) {
      handler(this);
    }
    handled_buffer = nullptr;
  }
  completed_handlers_.clear();
  handlers_are_done();
}

void CommandBuffer::handlers_are_done() {
  const std::lock_guard lock(mutex_);
  handlers_done_ = true;
  changed_.notify_all();
}

CommandEncoder::~CommandEncoder() {
  if (!ended_) {
    error("encoder-not-ended", text(name_for_findings(), " was dropped without endEncoding"));
    buffer_->encoder_closed();
  }
}

bool CommandEncoder::encoding() const {
  if (ended_) {
    error("encoder-ended", text(current_message(), ": ", name_for_findings(),
                                " takes no commands behind endEncoding"));
  }
  return !ended_;
}

void CommandEncoder::end_encoding() {
  if (encoding()) {
    if (groups_ != 0) {
      error("debug-group",
            text(current_message(), ": ", groups_, " debug group(s) were pushed and not popped"));
    }
    ended_ = true;
    buffer_->encoder_closed();
  }
}

void CommandEncoder::pop_group() {
  if (groups_ == 0) {
    error("debug-group", text(current_message(), ": no debug group was pushed"));
    return;
  }
  --groups_;
}

}  // namespace softmetal
