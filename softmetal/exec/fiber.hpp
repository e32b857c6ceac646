// A stack and a way to leave it and come back. A few nanoseconds a switch.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SOFTMETAL_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define SOFTMETAL_ASAN 1
#endif
#endif

extern "C" void softmetal_swap(void** save, void* load);

namespace softmetal::exec {

/// A suspended context: where its stack stands. Everything else is saved on that stack.
struct Context {
  void* sp = nullptr;
#if defined(SOFTMETAL_TSAN) || defined(SOFTMETAL_ASAN)
  void* sanitizer = nullptr;  ///< TSan's fiber, or ASan's fake stack
  const void* stack_low = nullptr;
  std::size_t stack_bytes = 0;
#endif
};

#if defined(SOFTMETAL_TSAN) || defined(SOFTMETAL_ASAN)
void switch_context(Context& from, Context& to);
void leave_context(Context& from, Context& to);
void arrived(Context& self);
#else
/// Leaves `from` and continues `to`. Returns when somebody switches back to `from`.
inline void switch_context(Context& from, Context& to) { softmetal_swap(&from.sp, to.sp); }
/// As switch_context, for a context that is never entered again in its present state.
inline void leave_context(Context& from, Context& to) { softmetal_swap(&from.sp, to.sp); }
/// To be called first by a body that was entered by a switch.
inline void arrived(Context&) {}
#endif

/// A context that calls body(argument) on the stack that ends at `top`, which is aligned to 64
/// bytes, when it is entered; body must not return.
Context context_on(std::byte* top, void (*body)(void*), void* argument);

/// One mapped stack with a guard page below it.
class __attribute__((visibility("hidden"))) Stack {
 public:
  explicit Stack(std::size_t bytes, std::size_t stagger);
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  /// A context that calls body(argument) on this stack when it is entered; body must not return.
  Context prepare(void (*body)(void*), void* argument);
  /// Whether `p` lies in the guard page: the stack has overflown.
  bool guards(const void* p) const;

 private:
  std::byte* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* top_ = nullptr;
#if defined(SOFTMETAL_TSAN)
  void* fiber_ = nullptr;
#endif
};

/// The calling thread's own stack, as a context to come back to.
void adopt_thread(Context& self);

}  // namespace softmetal::exec
