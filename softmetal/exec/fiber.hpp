// A stack and a way to leave it and come back. About 5 ns a switch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace softmetal::exec {

/// A suspended context: where its stack stands. Everything else is saved on that stack.
struct Context {
  void* sp = nullptr;
  void* sanitizer = nullptr;  ///< TSan's fiber, or ASan's fake stack
  const void* stack_low = nullptr;
  std::size_t stack_bytes = 0;
};

/// Leaves `from` and continues `to`. Returns when somebody switches back to `from`.
void switch_context(Context& from, Context& to);

/// As switch_context, for a context that is never entered again in its present state.
void leave_context(Context& from, Context& to);

/// One mapped stack with a guard page below it.
class Stack {
 public:
  explicit Stack(std::size_t bytes, std::size_t stagger);
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  /// Prepares a context that calls body(argument) on this stack; body must not return.
  void prepare(void (*body)(void*), void* argument);
  Context& context() { return context_; }
  bool contains(const void* p) const;

 private:
  std::byte* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* top_ = nullptr;
  Context context_;
};

/// To be called first by a body that was entered by a switch.
void arrived(Context& self);
/// The calling thread's own stack, as a context to come back to.
void adopt_thread(Context& self);

}  // namespace softmetal::exec
