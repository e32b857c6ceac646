#include "exec/fault.hpp"

#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <string>

#include "exec/worker.hpp"

namespace softcuda {
namespace {

constexpr int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction before[std::size(caught)];
thread_local std::uintptr_t fault_address;
thread_local int fault_signal;

/// Runs on the fiber's stack, from its top: nothing of the fiber is needed any more.
[[noreturn]] void crashed() {
  std::uintptr_t here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  auto* const fiber = reinterpret_cast<Fiber*>(here & ~(fiber_bytes - 1));
  const bool is_access = fault_signal == SIGSEGV || fault_signal == SIGBUS;
  fiber->worker->fail(fiber, is_access ? "memory access outside of everything, at address " +
                                             std::to_string(fault_address)
                                       : "integer division by zero, or an illegal instruction");
}

void handle(int signal, siginfo_t* info, void* state) {
#if defined(__x86_64__)
  auto& registers = static_cast<ucontext_t*>(state)->uc_mcontext.gregs;
  const auto stack = static_cast<std::uintptr_t>(registers[REG_RSP]);
  if (Worker::current().owns(reinterpret_cast<void*>(stack))) {
    const std::uintptr_t memory = stack & ~(fiber_bytes - 1);
    fault_signal = signal;
    fault_address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    registers[REG_RSP] = static_cast<greg_t>(memory + fiber_bytes - 24 * 1024 - 8);
    registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(&crashed));
    return;
  }
#endif
  // Not of a kernel: as it was before, when the access is tried again.
  static_cast<void>(info);
  static_cast<void>(state);
  for (std::size_t i = 0; i < std::size(caught); ++i) {
    if (caught[i] == signal) sigaction(signal, &before[i], nullptr);
  }
}

}  // namespace

void catch_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (std::size_t i = 0; i < std::size(caught); ++i) sigaction(caught[i], &action, &before[i]);
  });
  static thread_local bool has_stack = false;
  if (has_stack) return;
  has_stack = true;
  constexpr std::size_t bytes = 64 << 10;
  stack_t stack{};
  if (sigaltstack(nullptr, &stack) == 0 && (stack.ss_flags & SS_DISABLE) == 0) return;
  stack.ss_sp = std::malloc(bytes);
  stack.ss_size = bytes;
  stack.ss_flags = 0;
  sigaltstack(&stack, nullptr);
}

}  // namespace softcuda
