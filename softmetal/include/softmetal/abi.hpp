// Typed entry points for Objective-C messages (C++17, header only, included by objc/message.h).
//
// A call is reduced to canonical types: every pointer is void*, every enumeration its integer,
// every structure its bytes. Caller and method are compiled apart and agree on the canonical
// function type, whose spelling (`signature`) is compared at run time before the call.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include <objc/runtime.h>

// Finds the method of `receiver` for `selector`, or null: nil receivers, and calls that were
// reported.
extern "C" void (*softmetal_find_method(const void* receiver, SEL selector,
                                        const char* signature))();

namespace softmetal::abi {

template <std::size_t N>
struct Bytes {
  unsigned char data[N];
};

template <std::size_t Size, bool Signed>
struct IntegerOf;
// clang-format off
template <> struct IntegerOf<1, true> { using Type = std::int8_t; };
template <> struct IntegerOf<2, true> { using Type = std::int16_t; };
template <> struct IntegerOf<4, true> { using Type = std::int32_t; };
template <> struct IntegerOf<8, true> { using Type = std::int64_t; };
template <> struct IntegerOf<1, false> { using Type = std::uint8_t; };
template <> struct IntegerOf<2, false> { using Type = std::uint16_t; };
template <> struct IntegerOf<4, false> { using Type = std::uint32_t; };
template <> struct IntegerOf<8, false> { using Type = std::uint64_t; };
// clang-format on

template <class T>
struct Tag {
  using Type = T;
};

template <class T>
constexpr auto canonical_tag() {
  if constexpr (std::is_void_v<T>) {
    return Tag<void>{};
  } else if constexpr (std::is_same_v<T, bool> || std::is_floating_point_v<T>) {
    return Tag<T>{};
  } else if constexpr (std::is_enum_v<T>) {
    return canonical_tag<std::underlying_type_t<T>>();
  } else if constexpr (std::is_integral_v<T>) {
    return Tag<typename IntegerOf<sizeof(T), std::is_signed_v<T>>::Type>{};
  } else if constexpr (std::is_class_v<T>) {
    static_assert(std::is_trivially_copyable_v<T>);
    return Tag<Bytes<sizeof(T)>>{};
  } else {  // pointers, block pointers, nullptr_t
    static_assert(sizeof(T) == sizeof(void*));
    return Tag<void*>{};
  }
}

template <class T>
using Canonical = typename decltype(canonical_tag<std::remove_cv_t<T>>())::Type;

// One or two letters a type: v void, p pointer, b bool, c C s S i I q Q integers, f d floating
// point, and { followed by a letter that grows with the size for structures.
template <class C>
constexpr std::array<char, 2> letters() {
  if constexpr (std::is_void_v<C>) {
    return {'v', 0};
  } else if constexpr (std::is_pointer_v<C>) {
    return {'p', 0};
  } else if constexpr (std::is_same_v<C, bool>) {
    return {'b', 0};
  } else if constexpr (std::is_floating_point_v<C>) {
    return {sizeof(C) == 4 ? 'f' : 'd', 0};
  } else if constexpr (std::is_integral_v<C>) {
    constexpr int log2 = sizeof(C) == 1 ? 0 : sizeof(C) == 2 ? 1 : sizeof(C) == 4 ? 2 : 3;
    return {std::is_signed_v<C> ? "csiq"[log2] : "CSIQ"[log2], 0};
  } else {
    static_assert(sizeof(C) <= 8 * 64, "structures up to 512 bytes are passed by value");
    return {'{', static_cast<char>('0' + sizeof(C) / 8)};
  }
}

template <class... C>
struct SignatureText {
  static constexpr auto make() {
    std::array<char, 2 * sizeof...(C) + 1> result{};
    std::size_t at = 0;
    for (auto pair : {letters<C>()...}) {
      for (char letter : pair) {
        if (letter != 0) {
          result[at++] = letter;
        }
      }
    }
    return result;
  }
  static constexpr auto text = make();
};

// The result and the arguments behind receiver and selector.
template <class Ret, class... Args>
constexpr const char* signature() {
  return SignatureText<Canonical<Ret>, Canonical<Args>...>::text.data();
}

template <class To, class From>
To convert(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

template <class Ret, class... Args>
Ret send(const void* receiver, SEL selector, Args... args) {
  using Function = Canonical<Ret> (*)(void*, SEL, Canonical<Args>...);
  auto method = reinterpret_cast<Function>(
      softmetal_find_method(receiver, selector, signature<Ret, Args...>()));
  if constexpr (std::is_void_v<Ret>) {
    if (method != nullptr) {
      method(const_cast<void*>(receiver), selector, convert<Canonical<Args>>(args)...);
    }
  } else {
    Canonical<Ret> result{};
    if (method != nullptr) {
      result = method(const_cast<void*>(receiver), selector, convert<Canonical<Args>>(args)...);
    }
    return convert<Ret>(result);
  }
}

template <class Function>
struct Send;

template <class Ret, class... Args>
struct Send<Ret (*)(const void*, SEL, Args...)> {
  static Ret entry(const void* receiver, SEL selector, Args... args) {
    return send<Ret, Args...>(receiver, selector, args...);
  }
};

template <class Function>
struct SendStructure;

template <class Ret, class... Args>
struct SendStructure<void (*)(Ret*, const void*, SEL, Args...)> {
  static void entry(Ret* result, const void* receiver, SEL selector, Args... args) {
    *result = send<Ret, Args...>(receiver, selector, args...);
  }
};

}  // namespace softmetal::abi
