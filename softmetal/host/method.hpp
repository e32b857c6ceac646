// Glue from canonical calls (see softmetal/abi.hpp) to typed C++ functions.
//
// A method is an ordinary member function. Object parameters arrive resolved: alive, and of the
// right class. A returned Ref<T> becomes an owned or an autoreleased pointer by the selector's
// name, as the Cocoa rules say; a returned plain pointer is borrowed from its owner.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include <softmetal/abi.hpp>

#include "object.hpp"

namespace softmetal {

class Error;

// The message being answered; name() is "-[MTLBuffer length]".
class Message {
 public:
  Message(const void* receiver, SEL selector);
  ~Message();
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  std::string name() const;
  const objc_selector* selector() const { return selector_; }
  bool gives_ownership() const;
  static const Message* current();

 private:
  const void* receiver_;
  const objc_selector* selector_;
  const Message* outer_;
};

// The NSError** argument; may be null.
class ErrorSlot {
 public:
  explicit ErrorSlot(void* slot) : slot_(static_cast<Error**>(slot)) {}
  void set(Ref<Error> error) const;

 private:
  Error** slot_;
};

// An array of objects given as pointer; elements are resolved one by one.
struct ObjectArray {
  const void* const* pointers = nullptr;
};

template <class T>
concept ObjectType = std::is_base_of_v<Object, T>;

// How a parameter or result type crosses the boundary.
template <class T>
struct Adapt {
  using Abi = abi::Canonical<T>;
  static bool accepts(const Abi&, int) { return true; }
  static T in(const Abi& value) { return abi::convert<T>(value); }
  static Abi out(const T& value, const Message&) { return abi::convert<Abi>(value); }
};

void report_wrong_class(const Object& object, const Class& wanted, int argument);
std::string argument_role(int argument);

template <ObjectType T>
struct Adapt<T*> {
  using Abi = void*;
  static bool accepts(void* value, int argument) {
    if (value == nullptr) {
      return true;
    }
    Object* object = resolve(value, argument_role(argument).c_str());
    if (object == nullptr) {
      return false;
    }
    if (dynamic_cast<T*>(object) == nullptr) {
      report_wrong_class(*object, *class_of<T>, argument);
      return false;
    }
    return true;
  }
  static T* in(void* value) {
    return value == nullptr ? nullptr : dynamic_cast<T*>(resolve(value, nullptr));
  }
  static void* out(T* value, const Message&) { return value; }
};

template <class T>
struct Adapt<Ref<T>> {
  using Abi = void*;
  static void* out(Ref<T> value, const Message& message) {
    if (!message.gives_ownership()) {
      return autoreleased(std::move(value));
    }
    T* plain = value.detach();
    if (plain != nullptr) {
      plain->hold_to_client();
    }
    return plain;
  }
};

template <>
struct Adapt<ErrorSlot> {
  using Abi = void*;
  static bool accepts(void*, int) { return true; }
  static ErrorSlot in(void* value) { return ErrorSlot(value); }
};

template <>
struct Adapt<ObjectArray> {
  using Abi = void*;
  static bool accepts(void*, int) { return true; }
  static ObjectArray in(void* value) { return {static_cast<const void* const*>(value)}; }
};

// Resolves an element of an ObjectArray; null (and a finding) when it is not a T.
template <ObjectType T>
T* element(const ObjectArray& array, std::size_t index) {
  void* pointer = const_cast<void*>(array.pointers[index]);
  return Adapt<T*>::accepts(pointer, static_cast<int>(index)) ? Adapt<T*>::in(pointer) : nullptr;
}

template <class Ret, class Function, class... P>
auto guarded(const Message& message, Function&& function, const typename Adapt<P>::Abi&... args) ->
    typename Adapt<Ret>::Abi {
  int argument = 0;
  const bool fine = (Adapt<P>::accepts(args, ++argument) && ...);
  if constexpr (std::is_void_v<Ret>) {
    if (fine) {
      function(Adapt<P>::in(args)...);
    }
  } else {
    return fine ? Adapt<Ret>::out(function(Adapt<P>::in(args)...), message)
                : typename Adapt<Ret>::Abi{};
  }
}

template <>
struct Adapt<void> {
  using Abi = void;
};

template <class Ret, class... P>
constexpr const char* signature_of() {
  return abi::SignatureText<typename Adapt<Ret>::Abi, typename Adapt<P>::Abi...>::text.data();
}

template <class T>
using Plain = std::remove_cvref_t<T>;

// `Function` is a member of T, or takes a T& first.
template <auto Function, class T, class Ret, class... P>
struct BoundCall {
  static constexpr const char* signature() { return signature_of<Ret, Plain<P>...>(); }
  static typename Adapt<Ret>::Abi call(void* self, SEL selector,
                                       typename Adapt<Plain<P>>::Abi... args) {
    const Message message(self, selector);
    const Ref<Object> object(resolve(self, nullptr));
    auto run = [&](auto&&... values) -> decltype(auto) {
      return std::invoke(Function, static_cast<T&>(*object), values...);
    };
    return guarded<Ret, decltype(run)&, Plain<P>...>(message, run, args...);
  }
};

template <class T, auto Function>
struct InstanceCall;

template <class T, class Owner, class Ret, class... P, Ret (Owner::*Function)(P...)>
struct InstanceCall<T, Function> : BoundCall<Function, T, Ret, P...> {};

template <class T, class Owner, class Ret, class... P, Ret (Owner::*Function)(P...) const>
struct InstanceCall<T, Function> : BoundCall<Function, T, Ret, P...> {};

template <class T, class Self, class Ret, class... P, Ret (*Function)(Self&, P...)>
struct InstanceCall<T, Function> : BoundCall<Function, T, Ret, P...> {};

template <auto Function>
struct ClassCall;

template <class Ret, class... P, Ret (*Function)(P...)>
struct ClassCall<Function> {
  static constexpr const char* signature() { return signature_of<Ret, Plain<P>...>(); }
  static typename Adapt<Ret>::Abi call(void* self, SEL selector,
                                       typename Adapt<Plain<P>>::Abi... args) {
    const Message message(self, selector);
    return guarded<Ret, decltype(Function), Plain<P>...>(message, Function, args...);
  }
};

template <class T, auto Function>
struct InitialiserCall;

template <class T, class Owner, class... P, void (*Function)(Owner&, P...)>
struct InitialiserCall<T, Function> {
  static constexpr const char* signature() { return signature_of<void*, Plain<P>...>(); }
  static void* call(void* self, SEL selector, typename Adapt<Plain<P>>::Abi... args) {
    const Message message(self, selector);
    Object* object = resolve(self, nullptr);
    auto run = [&](auto&&... values) {
      Function(static_cast<T&>(*object), values...);
      object->initialised = true;
    };
    guarded<void, decltype(run)&, Plain<P>...>(message, run, args...);
    return self;
  }
};

}  // namespace softmetal
