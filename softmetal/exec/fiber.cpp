#include "fiber.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if defined(SOFTMETAL_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(SOFTMETAL_ASAN)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// softmetal_swap(void** save_sp, void* load_sp): pushes the callee-saved registers, exchanges the
// stack pointers and pops what the other side pushed.
#if defined(__x86_64__)
asm(R"(
.text
.globl softmetal_swap
.hidden softmetal_swap
.type softmetal_swap,@function
.p2align 4
softmetal_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rax
  jmp *%rax
.size softmetal_swap,.-softmetal_swap
.globl softmetal_start
.hidden softmetal_start
.type softmetal_start,@function
softmetal_start:
  movq %r12, %rdi
  callq *%r13
  ud2
.size softmetal_start,.-softmetal_start
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl softmetal_swap
.hidden softmetal_swap
.p2align 4
softmetal_swap:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.globl softmetal_start
.hidden softmetal_start
softmetal_start:
  mov x0, x19
  blr x20
  brk #1
)");
#else
#error "softmetal has a context switch for x86-64 and arm64 only"
#endif

extern "C" void softmetal_start();

// TSan counts calls and returns by fiber, so what switches must not be counted itself.
#if defined(SOFTMETAL_TSAN)
#define SOFTMETAL_UNCOUNTED __attribute__((disable_sanitizer_instrumentation))
#else
#define SOFTMETAL_UNCOUNTED
#endif

namespace softmetal::exec {
namespace {

const std::size_t kPage = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

}  // namespace

#if defined(SOFTMETAL_TSAN)
void arrived(Context&) {}

SOFTMETAL_UNCOUNTED void switch_context(Context& from, Context& to) {
  __tsan_switch_to_fiber(to.sanitizer, 0);
  softmetal_swap(&from.sp, to.sp);
}

SOFTMETAL_UNCOUNTED void leave_context(Context& from, Context& to) { switch_context(from, to); }
#elif defined(SOFTMETAL_ASAN)
void arrived(Context& self) { __sanitizer_finish_switch_fiber(self.sanitizer, nullptr, nullptr); }

void switch_context(Context& from, Context& to) {
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack_low, to.stack_bytes);
  softmetal_swap(&from.sp, to.sp);
  arrived(from);
}

void leave_context(Context& from, Context& to) {
  __sanitizer_start_switch_fiber(nullptr, to.stack_low, to.stack_bytes);
  softmetal_swap(&from.sp, to.sp);
}
#endif

void adopt_thread([[maybe_unused]] Context& self) {
#if defined(SOFTMETAL_TSAN)
  self.sanitizer = __tsan_get_current_fiber();
#elif defined(SOFTMETAL_ASAN)
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* low = nullptr;
    pthread_attr_getstack(&attributes, &low, &self.stack_bytes);
    self.stack_low = low;
    pthread_attr_destroy(&attributes);
  }
#endif
}

Stack::Stack(std::size_t bytes, std::size_t stagger) {
  mapped_ = round_up(bytes + stagger, kPage) + kPage;
  void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<std::byte*>(p);
  mprotect(mapping_, kPage, PROT_NONE);
  // Tops are staggered: stacks a power of two apart would all fall into the same cache sets.
  top_ = mapping_ + mapped_ - round_up(stagger, 64);
#if defined(SOFTMETAL_TSAN)
  fiber_ = __tsan_create_fiber(0);
#endif
}

Stack::~Stack() {
#if defined(SOFTMETAL_TSAN)
  __tsan_destroy_fiber(fiber_);
#endif
  munmap(mapping_, mapped_);
}

bool Stack::guards(const void* p) const {
  const auto* b = static_cast<const std::byte*>(p);
  return b >= mapping_ && b < mapping_ + kPage;
}

Context context_on(std::byte* top, void (*body)(void*), void* argument) {
  auto address = [](auto* p) { return reinterpret_cast<std::uintptr_t>(p); };
#if defined(__x86_64__)
  auto* slots = reinterpret_cast<std::uintptr_t*>(top) - 9;  // keeps the ABI's 16-byte rule
  for (int i = 0; i < 9; ++i) slots[i] = 0;
  slots[2] = address(body);      // r13
  slots[3] = address(argument);  // r12
  slots[6] = address(&softmetal_start);
#else
  auto* slots = reinterpret_cast<std::uintptr_t*>(top) - 20;
  for (int i = 0; i < 20; ++i) slots[i] = 0;
  slots[0] = address(argument);           // x19
  slots[1] = address(body);               // x20
  slots[11] = address(&softmetal_start);  // x30
#endif
  Context context;
  context.sp = slots;
  return context;
}

Context Stack::prepare(void (*body)(void*), void* argument) {
  Context context = context_on(top_, body, argument);
#if defined(SOFTMETAL_ASAN)
  __asan_unpoison_memory_region(mapping_ + kPage, mapped_ - kPage);
  context.stack_low = mapping_ + kPage;
  context.stack_bytes = mapped_ - kPage;
#endif
#if defined(SOFTMETAL_TSAN)
  // A fresh fiber: the calls of the last body were never returned from.
  __tsan_destroy_fiber(fiber_);
  fiber_ = __tsan_create_fiber(0);
  context.sanitizer = fiber_;
#endif
  return context;
}

}  // namespace softmetal::exec
