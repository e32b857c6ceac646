// <metal_type_traits>, <metal_limits>, <metal_array> and the like.
#pragma once
#include "softmetal_types.h"

namespace metal {

template <typename T, T V>
struct integral_constant {
  static constexpr T value = V;
  using value_type = T;
  using type = integral_constant;
  constexpr operator T() const { return V; }
  constexpr T operator()() const { return V; }
};
template <bool B>
using bool_constant = integral_constant<bool, B>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;

template <bool B, typename T = void>
struct enable_if {};
template <typename T>
struct enable_if<true, T> {
  using type = T;
};
template <bool B, typename T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool B, typename T, typename F>
struct conditional {
  using type = T;
};
template <typename T, typename F>
struct conditional<false, T, F> {
  using type = F;
};
template <bool B, typename T, typename F>
using conditional_t = typename conditional<B, T, F>::type;

#define SOFTMETAL_REMOVE(name, pattern) \
  template <typename T>                 \
  struct name {                         \
    using type = T;                     \
  };                                    \
  template <typename T>                 \
  struct name<pattern> {                \
    using type = T;                     \
  };                                    \
  template <typename T>                 \
  using name##_t = typename name<T>::type;
SOFTMETAL_REMOVE(remove_const, const T)
SOFTMETAL_REMOVE(remove_volatile, volatile T)
#undef SOFTMETAL_REMOVE
template <typename T>
struct remove_cv {
  using type = remove_const_t<remove_volatile_t<T>>;
};
template <typename T>
using remove_cv_t = typename remove_cv<T>::type;
template <typename T>
struct remove_reference {
  using type = T;
};
template <typename T>
struct remove_reference<T&> {
  using type = T;
};
template <typename T>
struct remove_reference<T&&> {
  using type = T;
};
template <typename T>
using remove_reference_t = typename remove_reference<T>::type;
template <typename T>
struct remove_pointer {
  using type = T;
};
template <typename T>
struct remove_pointer<T*> {
  using type = T;
};
template <typename T>
using remove_pointer_t = typename remove_pointer<T>::type;
template <typename T>
struct remove_addrspace {
  using type = T;
};
template <typename T>
struct remove_addrspace<device T> {
  using type = T;
};
template <typename T>
struct remove_addrspace<threadgroup T> {
  using type = T;
};
template <typename T>
struct remove_addrspace<constant T> {
  using type = const T;
};
template <typename T>
using remove_addrspace_t = typename remove_addrspace<T>::type;
template <typename T>
struct decay {
  using type = softmetal::plain_t<T>;
};
template <typename T>
using decay_t = typename decay<T>::type;
template <typename T>
struct make_unsigned;
template <typename T>
struct make_signed;
#define SOFTMETAL_SIGNS(S, U) \
  template <>                 \
  struct make_unsigned<S> {   \
    using type = U;           \
  };                          \
  template <>                 \
  struct make_unsigned<U> {   \
    using type = U;           \
  };                          \
  template <>                 \
  struct make_signed<S> {     \
    using type = S;           \
  };                          \
  template <>                 \
  struct make_signed<U> {     \
    using type = S;           \
  };
SOFTMETAL_SIGNS(char, uchar)
SOFTMETAL_SIGNS(short, ushort)
SOFTMETAL_SIGNS(int, uint)
SOFTMETAL_SIGNS(long, ulong)
#undef SOFTMETAL_SIGNS
template <typename T>
using make_unsigned_t = typename make_unsigned<T>::type;
template <typename T>
using make_signed_t = typename make_signed<T>::type;
template <typename T>
struct make_scalar {
  using type = softmetal::element_t<T>;
};
template <typename T>
using make_scalar_t = typename make_scalar<T>::type;

#define SOFTMETAL_TRAIT(name, ...)              \
  template <typename T>                         \
  inline constexpr bool name##_v = __VA_ARGS__; \
  template <typename T>                         \
  struct name : bool_constant<name##_v<T>> {};
SOFTMETAL_TRAIT(is_integral,
                softmetal::is_integer<remove_cv_t<T>> || softmetal::same<remove_cv_t<T>, bool>)
SOFTMETAL_TRAIT(is_floating_point, softmetal::is_floating<remove_cv_t<T>>)
SOFTMETAL_TRAIT(is_arithmetic, is_integral_v<T> || is_floating_point_v<T>)
SOFTMETAL_TRAIT(is_scalar, is_arithmetic_v<T>)
SOFTMETAL_TRAIT(is_vector, softmetal::is_vector<remove_cv_t<T>>)
SOFTMETAL_TRAIT(is_signed, is_floating_point_v<T> || softmetal::is_signed_integer<remove_cv_t<T>>)
SOFTMETAL_TRAIT(is_unsigned, is_integral_v<T> && !is_signed_v<T>)
SOFTMETAL_TRAIT(is_void, (softmetal::same<remove_cv_t<T>, void>))
SOFTMETAL_TRAIT(is_pointer, (!softmetal::same<remove_pointer_t<remove_cv_t<T>>, remove_cv_t<T>>))
SOFTMETAL_TRAIT(is_const, __is_const(T))
SOFTMETAL_TRAIT(is_enum, __is_enum(T))
SOFTMETAL_TRAIT(is_class, __is_class(T))
SOFTMETAL_TRAIT(is_union, __is_union(T))
SOFTMETAL_TRAIT(is_array, __is_array(T))
SOFTMETAL_TRAIT(is_reference, __is_reference(T))
SOFTMETAL_TRAIT(is_trivially_copyable, __is_trivially_copyable(T))
#undef SOFTMETAL_TRAIT
template <typename A, typename B>
inline constexpr bool is_same_v = softmetal::same<A, B>;
template <typename A, typename B>
struct is_same : bool_constant<is_same_v<A, B>> {};
template <typename From, typename To>
inline constexpr bool is_convertible_v = __is_convertible(From, To);
template <typename From, typename To>
struct is_convertible : bool_constant<is_convertible_v<From, To>> {};
template <typename B, typename D>
inline constexpr bool is_base_of_v = __is_base_of(B, D);
template <typename T>
inline constexpr int vec_elements = softmetal::Shape<T>::width;
template <typename T>
struct underlying_type {
  using type = __underlying_type(T);
};
template <typename T>
using underlying_type_t = typename underlying_type<T>::type;
template <typename... B>
inline constexpr bool conjunction_v = (B::value && ...);
template <typename... B>
inline constexpr bool disjunction_v = (B::value || ...);
template <typename... B>
struct conjunction : bool_constant<(B::value && ...)> {};
template <typename... B>
struct disjunction : bool_constant<(B::value || ...)> {};
template <typename... B>
struct _disjunction : bool_constant<(B::value || ...)> {};
template <typename B>
struct negation : bool_constant<!B::value> {};

template <typename T>
remove_reference_t<T>&& declval();
template <typename T>
constexpr remove_reference_t<T>&& move(T&& t) {
  return static_cast<remove_reference_t<T>&&>(t);
}
template <typename T>
void swap(thread T& a, thread T& b) {
  T t = a;
  a = b;
  b = t;
}

/// A value that is the same in all threads of a simdgroup; not checked.
template <typename T>
struct uniform {
  constexpr uniform() = default;
  constexpr uniform(T v) : softmetal_value(v) {}
  constexpr operator T() const { return softmetal_value; }
  T softmetal_value{};
};
template <typename T>
constexpr uniform<T> make_uniform(T v) {
  return v;
}

template <size_t... I>
struct index_sequence {
  static constexpr size_t size() { return sizeof...(I); }
};
template <typename T, T... I>
struct integer_sequence {
  static constexpr size_t size() { return sizeof...(I); }
};
template <typename T, T N>
using make_integer_sequence = __make_integer_seq<integer_sequence, T, N>;
template <typename T, T... I>
index_sequence<I...> softmetal_indices(integer_sequence<T, I...>);
template <size_t N>
using make_index_sequence = decltype(softmetal_indices(make_integer_sequence<size_t, N>{}));

template <typename T>
struct numeric_limits;
#define SOFTMETAL_INTEGER_LIMITS(T, lowest_value, max_value)                \
  template <>                                                               \
  struct numeric_limits<T> {                                                \
    static constexpr bool is_specialized = true, is_integer = true;         \
    static constexpr bool is_signed = T(-1) < T(0);                         \
    static constexpr int digits = int(sizeof(T) * 8) - (is_signed ? 1 : 0); \
    static constexpr T min() { return lowest_value; }                       \
    static constexpr T lowest() { return lowest_value; }                    \
    static constexpr T max() { return max_value; }                          \
    static constexpr T infinity() { return T(0); }                          \
  };
SOFTMETAL_INTEGER_LIMITS(bool, false, true)
SOFTMETAL_INTEGER_LIMITS(char, -128, 127)
SOFTMETAL_INTEGER_LIMITS(int8_t, -128, 127)
SOFTMETAL_INTEGER_LIMITS(uchar, 0, 255)
SOFTMETAL_INTEGER_LIMITS(short, -32768, 32767)
SOFTMETAL_INTEGER_LIMITS(ushort, 0, 65535)
SOFTMETAL_INTEGER_LIMITS(int, -2147483647 - 1, 2147483647)
SOFTMETAL_INTEGER_LIMITS(uint, 0, 4294967295u)
SOFTMETAL_INTEGER_LIMITS(long, -9223372036854775807L - 1, 9223372036854775807L)
SOFTMETAL_INTEGER_LIMITS(ulong, 0, 18446744073709551615ul)
#undef SOFTMETAL_INTEGER_LIMITS
#define SOFTMETAL_FLOAT_LIMITS(T, digits_value, min_value, max_value, epsilon_value)   \
  template <>                                                                          \
  struct numeric_limits<T> {                                                           \
    static constexpr bool is_specialized = true, is_integer = false, is_signed = true; \
    static constexpr bool has_infinity = true, has_quiet_NaN = true;                   \
    static constexpr int digits = digits_value;                                        \
    static constexpr T min() { return T(min_value); }                                  \
    static constexpr T lowest() { return T(-(max_value)); }                            \
    static constexpr T max() { return T(max_value); }                                  \
    static constexpr T epsilon() { return T(epsilon_value); }                          \
    static constexpr T infinity() { return T(__builtin_inff()); }                      \
    static constexpr T quiet_NaN() { return T(__builtin_nanf("")); }                   \
  };
SOFTMETAL_FLOAT_LIMITS(float, 24, 0x1p-126f, 0x1.fffffep127f, 0x1p-23f)
SOFTMETAL_FLOAT_LIMITS(half, 11, 0x1p-14f, 65504.0f, 0x1p-10f)
SOFTMETAL_FLOAT_LIMITS(bfloat, 8, 0x1p-126f, 0x1.fep127f, 0x1p-7f)
#undef SOFTMETAL_FLOAT_LIMITS

template <typename T, size_t N>
struct array {
  T softmetal_elements[N];
  constexpr thread T& operator[](size_t i) { return softmetal_elements[i]; }
  constexpr const thread T& operator[](size_t i) const { return softmetal_elements[i]; }
  constexpr size_t size() const { return N; }
  constexpr thread T* data() { return softmetal_elements; }
  constexpr const thread T* data() const { return softmetal_elements; }
  constexpr thread T* begin() { return softmetal_elements; }
  constexpr thread T* end() { return softmetal_elements + N; }
  constexpr const thread T* begin() const { return softmetal_elements; }
  constexpr const thread T* end() const { return softmetal_elements + N; }
};

}  // namespace metal
