#include "crash.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <mutex>

#include "runner.hpp"

namespace softmetal::exec {
namespace {

constexpr std::array<int, 4> kSignals{SIGSEGV, SIGBUS, SIGFPE, SIGILL};
std::array<struct sigaction, kSignals.size()> earlier_actions;

/// A line of text, made without memory of the heap: nothing else is safe in a handler.
class Line {
 public:
  Line& operator<<(const char* text) {
    while (*text != '\0' && length_ + 1 < sizeof text_) text_[length_++] = *text++;
    return *this;
  }
  Line& operator<<(u64 number) {
    char digits[21];
    char* at = digits + sizeof digits - 1;
    *at = '\0';
    do {
      *--at = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    return *this << at;
  }
  Line& operator<<(const msl::Size3& s) {
    return *this << "(" << u64{s.x} << "," << u64{s.y} << "," << u64{s.z} << ")";
  }
  void print() {
    text_[length_++] = '\n';
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text_, length_);
  }

 private:
  char text_[512];
  std::size_t length_ = 0;
};

const char* cause_of(int signal, const siginfo_t& info, const Runner& runner) {
  if (signal == SIGFPE) return "divided an integer by zero";
  if (signal == SIGILL) return "ran into an illegal instruction";
  if (runner.is_stack_guard(info.si_addr)) return "used up a thread's stack (recursion?)";
  return "touched memory that is not its own";
}

void describe(int signal, const siginfo_t& info, const Runner& runner) {
  const Job& job = runner.job();
  Line line;
  line << "softmetal: error [kernel-crash] kernel '" << job.kernel.c_str() << "' "
       << cause_of(signal, info, runner) << ": thread " << runner.thread_position()
       << " of threadgroup " << runner.group_position();
  if (const Site* site = runner.last_site()) {
    line << ", behind the access at " << site->file.c_str() << ":" << static_cast<u64>(site->line);
  } else if (!job.instrumented) {
    line << "; SOFTMETAL_CHECKS=off hides where, run it again with checks";
  }
  line.print();
}

void on_fault(int signal, siginfo_t* info, void* context) {
  std::size_t i = 0;
  while (kSignals[i] != signal) ++i;
  const Runner* runner = current_runner;
  if (runner != nullptr && runner->in_kernel()) {
    describe(signal, *info, *runner);
    ::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  const struct sigaction& earlier = earlier_actions[i];
  if ((earlier.sa_flags & SA_SIGINFO) != 0 && earlier.sa_sigaction != nullptr) {
    earlier.sa_sigaction(signal, info, context);
  } else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
    earlier.sa_handler(signal);
  } else {
    sigaction(signal, &earlier, nullptr);  // the instruction faults again and ends the program
  }
}

/// The handler's stack of one thread, given back when the thread ends.
class SignalStack {
 public:
  SignalStack() {
    stack_t present{};
    sigaltstack(nullptr, &present);
    if ((present.ss_flags & SS_DISABLE) == 0) return;  // a sanitizer or the program has one
    memory_ = std::make_unique<std::byte[]>(kBytes);
    stack_t own{};
    own.ss_sp = memory_.get();
    own.ss_size = kBytes;
    sigaltstack(&own, nullptr);
  }
  ~SignalStack() {
    if (!memory_) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  static constexpr std::size_t kBytes = 64 * 1024;
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace

void prepare_thread_for_crashes() {
  thread_local const SignalStack stack;
  static_cast<void>(&stack);
}

void arrange_crash_reports() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      struct sigaction action{};
      action.sa_sigaction = &on_fault;
      action.sa_flags = SA_SIGINFO | SA_ONSTACK;
      sigemptyset(&action.sa_mask);
      sigaction(kSignals[i], &action, &earlier_actions[i]);
    }
  });
}

}  // namespace softmetal::exec
