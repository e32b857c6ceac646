// <metal_atomic>: atomics in device and threadgroup memory, relaxed order.
#pragma once
#include "softmetal_simdgroup.h"

namespace softmetal {
template <int bytes>
using Bits = metal::conditional_t<bytes == 8, ulong, metal::conditional_t<bytes == 4, uint, uchar>>;
}

namespace metal {

template <typename T>
struct atomic {
  T softmetal_value;
};
template <typename T>
struct _atomic : atomic<T> {};
using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_bool = atomic<bool>;
using atomic_float = atomic<float>;
using atomic_ulong = atomic<ulong>;

inline void atomic_thread_fence(mem_flags, memory_order, thread_scope = thread_scope_device) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#define SOFTMETAL_FETCH(space, name)                                                     \
  template <typename T>                                                                  \
  T atomic_fetch_##name##_explicit(volatile space atomic<T>* p, softmetal::plain_t<T> v, \
                                   memory_order) {                                       \
    softmetal_runtime->count_atomic();                                                   \
    return __atomic_fetch_##name(&p->softmetal_value, v, __ATOMIC_RELAXED);              \
  }
// By compare and swap of bits: the compiler's own operations know no floats.
#define SOFTMETAL_FETCH_BY_LOOP(space, name, T_parameter, T, expression)                          \
  T_parameter T atomic_fetch_##name##_explicit(volatile space atomic<T>* p,                       \
                                               softmetal::plain_t<T> v, memory_order) {           \
    softmetal_runtime->count_atomic();                                                            \
    using Bits = softmetal::Bits<sizeof(T)>;                                                      \
    auto* bits = reinterpret_cast<volatile space Bits*>(&p->softmetal_value);                     \
    Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED);                                          \
    for (;;) {                                                                                    \
      const T old = __builtin_bit_cast(T, seen);                                                  \
      const T next = expression;                                                                  \
      const Bits found = __sync_val_compare_and_swap(bits, seen, __builtin_bit_cast(Bits, next)); \
      if (found == seen) return old;                                                              \
      seen = found;                                                                               \
    }                                                                                             \
  }
#define SOFTMETAL_ATOMICS(space)                                                                   \
  SOFTMETAL_FETCH(space, add)                                                                      \
  SOFTMETAL_FETCH(space, sub)                                                                      \
  SOFTMETAL_FETCH(space, and)                                                                      \
  SOFTMETAL_FETCH(space, or)                                                                       \
  SOFTMETAL_FETCH(space, xor)                                                                      \
  SOFTMETAL_FETCH_BY_LOOP(space, min, template <typename T>, T, min(old, v))                       \
  SOFTMETAL_FETCH_BY_LOOP(space, max, template <typename T>, T, max(old, v))                       \
  SOFTMETAL_FETCH_BY_LOOP(space, add, inline, float, old + v)                                      \
  SOFTMETAL_FETCH_BY_LOOP(space, sub, inline, float, old - v)                                      \
  template <typename T>                                                                            \
  void atomic_store_explicit(volatile space atomic<T>* p, softmetal::plain_t<T> v, memory_order) { \
    softmetal_runtime->count_atomic();                                                             \
    using Bits = softmetal::Bits<sizeof(T)>;                                                       \
    __atomic_store_n(reinterpret_cast<volatile space Bits*>(&p->softmetal_value),                  \
                     __builtin_bit_cast(Bits, T(v)), __ATOMIC_RELAXED);                            \
  }                                                                                                \
  template <typename T>                                                                            \
  T atomic_load_explicit(const volatile space atomic<T>* p, memory_order) {                        \
    softmetal_runtime->count_atomic();                                                             \
    using Bits = softmetal::Bits<sizeof(T)>;                                                       \
    return __builtin_bit_cast(                                                                     \
        T, __atomic_load_n(reinterpret_cast<const volatile space Bits*>(&p->softmetal_value),      \
                           __ATOMIC_RELAXED));                                                     \
  }                                                                                                \
  template <typename T>                                                                            \
  T atomic_exchange_explicit(volatile space atomic<T>* p, softmetal::plain_t<T> v, memory_order) { \
    softmetal_runtime->count_atomic();                                                             \
    using Bits = softmetal::Bits<sizeof(T)>;                                                       \
    return __builtin_bit_cast(                                                                     \
        T, __atomic_exchange_n(reinterpret_cast<volatile space Bits*>(&p->softmetal_value),        \
                               __builtin_bit_cast(Bits, T(v)), __ATOMIC_RELAXED));                 \
  }                                                                                                \
  template <typename T>                                                                            \
  bool atomic_compare_exchange_weak_explicit(volatile space atomic<T>* p, thread T* expected,      \
                                             softmetal::plain_t<T> v, memory_order,                \
                                             memory_order) {                                       \
    softmetal_runtime->count_atomic();                                                             \
    using Bits = softmetal::Bits<sizeof(T)>;                                                       \
    const Bits wanted = __builtin_bit_cast(Bits, *expected);                                       \
    const Bits found =                                                                             \
        __sync_val_compare_and_swap(reinterpret_cast<volatile space Bits*>(&p->softmetal_value),   \
                                    wanted, __builtin_bit_cast(Bits, T(v)));                       \
    *expected = __builtin_bit_cast(T, found);                                                      \
    return found == wanted;                                                                        \
  }
SOFTMETAL_ATOMICS(device)
SOFTMETAL_ATOMICS(threadgroup)
inline void atomic_min_explicit(volatile device atomic_ulong* p, ulong v, memory_order order) {
  atomic_fetch_min_explicit(p, v, order);
}
inline void atomic_max_explicit(volatile device atomic_ulong* p, ulong v, memory_order order) {
  atomic_fetch_max_explicit(p, v, order);
}
#undef SOFTMETAL_ATOMICS
#undef SOFTMETAL_FETCH
#undef SOFTMETAL_FETCH_BY_LOOP

}  // namespace metal
