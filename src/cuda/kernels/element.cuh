// Numbers in memory: f16, bf16 and float, read and written one at a time.
#pragma once

#include "cuda/kernels/dialect.h"

namespace ingot {

INGOT_FN float to_float(float x) { return x; }
INGOT_FN float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
INGOT_FN float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

INGOT_FN void from_float(float& y, float x) { y = x; }
INGOT_FN void from_float(bf16& y, float x) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}
INGOT_FN void from_float(f16& y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

template <class To, class From>
INGOT_FN To convert(From x) {
  To y;
  from_float(y, to_float(x));
  return y;
}

template <class A, class B>
struct IsSame {
  static constexpr bool value = false;
};
template <class A>
struct IsSame<A, A> {
  static constexpr bool value = true;
};

// F without its reference.
template <class F>
struct PlainOf {
  using type = F;
};
template <class F>
struct PlainOf<F&> {
  using type = F;
};
template <class F>
using Plain = typename PlainOf<F>::type;

template <bool First, class A, class B>
struct Select {
  using type = A;
};
template <class A, class B>
struct Select<false, A, B> {
  using type = B;
};

}  // namespace ingot
