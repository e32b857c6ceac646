// How a kernel is called: its parameters are filled from a frame by what their attributes say.
#pragma once
#include "softmetal_simdgroup.h"

namespace softmetal {
using softmetal_abi::Frame;

template <unsigned Kind, int Index, bool Active>
struct Arg {
  static constexpr unsigned kind = Kind;
  static constexpr int index = Index;
  static constexpr bool active = Active;
};

template <typename P>
P from_triple(const softmetal_abi::Triple& t) {
  if constexpr (is_vector<P>) {
    P p;
    for (int i = 0; i < Shape<P>::width; ++i) p[i] = static_cast<element_t<P>>(t.v[i]);
    return p;
  } else {
    return static_cast<P>(t.v[0]);
  }
}

template <typename P>
struct Reference {
  static constexpr bool value = false;
  using Pointer = P;
};
template <typename P>
struct Reference<P&> {
  static constexpr bool value = true;
  using Pointer = P*;
};

template <typename P, typename A>
P fetch(const Frame& f) {
  using namespace softmetal_abi;
  if constexpr (A::kind == arg_buffer || A::kind == arg_threadgroup) {
    const u64 bound =
        A::kind == arg_buffer ? f.args->buffers[A::index] : f.args->threadgroups[A::index];
    using Pointer = typename Reference<P>::Pointer;
    if constexpr (Reference<P>::value) {
      return *reinterpret_cast<Pointer>(A::active && bound != 0 ? bound : f.args->zero_page);
    } else {
      return reinterpret_cast<Pointer>(A::active ? bound : 0);
    }
  } else if constexpr (A::kind == arg_thread_position_in_grid) {
    return from_triple<P>(f.in_grid);
  } else if constexpr (A::kind == arg_thread_position_in_threadgroup) {
    return from_triple<P>(f.in_group);
  } else if constexpr (A::kind < arg_group_values) {
    const u32 i = f.index_in_group;
    return from_triple<P>({{A::kind == arg_thread_index_in_threadgroup      ? i
                            : A::kind == arg_thread_index_in_simdgroup      ? i % 32
                            : A::kind == arg_simdgroup_index_in_threadgroup ? i / 32
                            : A::kind == arg_thread_index_in_quadgroup      ? i % 4
                                                                            : i / 4,
                            0, 0}});
  } else {
    return from_triple<P>(f.args->values[A::kind - arg_group_values]);
  }
}

template <typename... A, typename... P>
void invoke(void (*kernel)(P...), const Frame& f) {
  static_assert(sizeof...(A) == sizeof...(P), "an attribute for every parameter");
  kernel(fetch<P, A>(f)...);
}

/// Reflection of one parameter: space, size and alignment of what it points to, read-only,
/// reference.
struct Parameter {
  int space = 0, size = 0, align = 1, read_only = 0, reference = 0, width = 0, element = 0;
};
template <typename T>
struct Space {
  static constexpr int value = 0;
};
template <typename T>
struct Space<device T> {
  static constexpr int value = 1;
};
template <typename T>
struct Space<const device T> {
  static constexpr int value = 1;
};
template <typename T>
struct Space<volatile device T> {
  static constexpr int value = 1;
};
template <typename T>
struct Space<const volatile device T> {
  static constexpr int value = 1;
};
template <typename T>
struct Space<threadgroup T> {
  static constexpr int value = 3;
};
template <typename T>
struct Space<const threadgroup T> {
  static constexpr int value = 3;
};
template <typename T>
struct Space<volatile threadgroup T> {
  static constexpr int value = 3;
};
template <typename T>
struct Space<constant T> {
  static constexpr int value = 5;
};
template <typename T>
constexpr Parameter pointee(bool reference) {
  Parameter p;
  p.space = Space<T>::value;
  p.reference = reference;
  p.read_only = __is_const(T);
  if constexpr (!same<plain_t<T>, void>) {
    p.size = sizeof(plain_t<T>);
    p.align = alignof(plain_t<T>);
  }
  return p;
}
/// 1 bool, 2 ushort, 3 uint, 4 anything else: what a position argument may be made of.
template <typename T>
constexpr int element_code() {
  return same<T, bool> ? 1 : same<T, ushort> ? 2 : same<T, uint> ? 3 : 4;
}
template <typename P>
struct Reflect {
  static constexpr Parameter value() {
    Parameter p;
    p.size = sizeof(P);
    p.align = alignof(P);
    p.width = Shape<P>::width;
    p.element = element_code<element_t<P>>();
    return p;
  }
};
template <typename T>
struct Reflect<T*> {
  static constexpr Parameter value() { return pointee<T>(false); }
};
template <typename T>
struct Reflect<T&> {
  static constexpr Parameter value() { return pointee<T>(true); }
};

inline constexpr int kParameterWords = 9;
template <int N>
struct Table {
  int words[1 + N * kParameterWords];
};
/// Every word is one more than its value: clang writes zeros of constants in several ways.
template <typename... A, typename... P>
constexpr auto reflect(void (*)(P...)) {
  static_assert(sizeof...(A) == sizeof...(P), "an attribute for every parameter");
  Table<int(sizeof...(P))> t{};
  const Parameter parameters[] = {Reflect<P>::value()..., Parameter{}};
  const int indices[] = {A::index..., 0};
  const bool active[] = {A::active..., false};
  t.words[0] = int(sizeof...(P)) + 1;
  for (int i = 0; i < int(sizeof...(P)); ++i) {
    const Parameter& p = parameters[i];
    const int words[] = {p.space, p.size,    p.align,    p.read_only, p.reference,
                         p.width, p.element, indices[i], active[i]};
    for (int w = 0; w < kParameterWords; ++w) t.words[1 + i * kParameterWords + w] = words[w] + 1;
  }
  return t;
}

/// Lets the compiler think that others know the variable, as the other threads do.
template <typename T>
inline void escape(const threadgroup T* p) {
  __asm__ volatile("" : : "r"(p));
}

/// float to bfloat, nearest even; NaN stays a quiet NaN.
inline ushort rounded_to_bfloat(float x) {
  const u32 bits = __builtin_bit_cast(u32, x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return ushort(bits >> 16 | 0x40);
  return ushort((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace softmetal

/// One kernel: the table that the front end reads, or the entry that the executor calls.
#define SOFTMETAL_REFLECT(number, kernel, ...)                              \
  extern "C" __attribute__((used)) constexpr auto softmetal_info_##number = \
      softmetal::reflect<__VA_ARGS__>(kernel);                              \
  extern "C" __attribute__((used)) constexpr auto softmetal_root_##number = kernel;
#define SOFTMETAL_ENTRY_POINT(kernel, ...)                                                 \
  extern "C" __attribute__((visibility("default")))                                        \
  const softmetal_abi::Runtime* softmetal_runtime = nullptr;                               \
  /* What the code generator calls for a conversion; not every compiler library has it. */ \
  extern "C" __attribute__((used)) bfloat __truncsfbf2(float x) {                          \
    return __builtin_bit_cast(bfloat, softmetal::rounded_to_bfloat(x));                    \
  }                                                                                        \
  extern "C" __attribute__((used, visibility("default"))) void softmetal_entry(            \
      const softmetal_abi::Frame* frame) {                                                 \
    softmetal::invoke<__VA_ARGS__>(kernel, *frame);                                        \
  }
