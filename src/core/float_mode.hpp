// The floating-point mode that every result is computed in: round to nearest, subnormal numbers
// kept, no traps. A caller may have another one (a library built with -ffast-math sets it for the
// whole thread); the bits of a result must not follow it.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

#include <cstdint>

namespace ingot {

/// While it lives, this thread computes in that mode; then it has its own again, flags included.
class FloatMode {
 public:
  FloatMode() : before_(read()) { write(standard()); }
  ~FloatMode() { write(before_); }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__x86_64__)
  using State = unsigned;  // MXCSR
  static State read() { return _mm_getcsr(); }
  static void write(State state) { _mm_setcsr(state); }
  static State standard() { return 0x1F80; }  // every exception masked, nothing else
#elif defined(__aarch64__)
  using State = std::uint64_t;  // FPCR
  static State read() {
    State state = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
  }
  static void write(State state) { __asm__ volatile("msr fpcr, %0" : : "r"(state) : "memory"); }
  static State standard() { return 0; }
#else
  using State = std::fenv_t;
  static State read() {
    State state;
    std::fegetenv(&state);
    return state;
  }
  static void write(const State& state) { std::fesetenv(&state); }
  static State standard() {
    std::fesetenv(FE_DFL_ENV);
    return read();
  }
#endif

  const State before_;
};

}  // namespace ingot
