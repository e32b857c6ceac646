// Reference-counted objects behind metal-cpp's pointers.
//
// Two counts are kept: references that the program owns, and references that softmetal's own
// objects hold. So an over-release is seen at once, even while a command buffer keeps the object
// alive.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "report.hpp"

struct objc_selector;

namespace softmetal {

struct Class;
class Object;

template <class T>
class Ref;

class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
  static void operator delete(void* memory);  // the address is not used again for a long time

  const Class& type() const { return *type_; }
  std::uint64_t serial() const { return serial_; }  // later objects have greater ones
  // "MTLBuffer 'weights' (made by newBufferWithLength:options:)", for findings.
  std::string name_for_findings() const;
  // NSObject's description.
  virtual std::string description() const { return name_for_findings(); }
  virtual std::string label_text() const { return {}; }
  virtual Ref<Object> copy();  // null when objects of the class cannot be copied
  // What is wrong when the process ends in this state; "" when nothing is.
  virtual std::string complaint_at_end() const { return {}; }
  virtual bool is_equal(const Object& other) const { return this == &other; }
  virtual std::size_t hash_value() const { return reinterpret_cast<std::uintptr_t>(this) >> 4; }

  bool equals(Object* other) const;
  std::uint64_t hash() const;
  Ref<class String> describe() const;

  void hold();            // + a reference of softmetal's own
  bool try_hold();        // the same, unless the object is on its way out
  void let_go();          // - one of those
  void client_retain();   // + a reference of the program
  void client_release();  // - one of those; an over-release is reported and does nothing
  void hold_to_client();  // turns a held reference into one of the program
  std::uint32_t client_count() const { return static_cast<std::uint32_t>(counts_.load()); }
  std::uint32_t held_count() const { return static_cast<std::uint32_t>(counts_.load() >> 32); }

  bool initialised = true;  // false between alloc and init
  bool immortal = false;    // constants: never counted, never freed
  bool leak_known = false;  // already reported, or meant to live as long as the process

 private:
  template <class T, class... Args>
  friend Ref<T> make(Args&&... args);
  friend Object* adopt(Object* object, const Class& type);
  void add(std::int64_t change);

  const Class* type_ = nullptr;
  const objc_selector* made_by_ = nullptr;
  std::uint64_t serial_ = 0;
  std::atomic<std::uint64_t> counts_{std::uint64_t{1} << 32};  // held in the upper half
};

// A counted pointer to an object, held by softmetal.
template <class T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}
  Ref(T* object) : object_(object) { hold(); }
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  Ref(Ref<U> other) : object_(other.detach()) {}
  ~Ref() {
    if (object_ != nullptr) {
      object_->let_go();
    }
  }
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  static Ref take(T* object) {  // the reference that the caller holds
    Ref ref;
    ref.object_ = object;
    return ref;
  }
  T* detach() { return std::exchange(object_, nullptr); }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  void hold() {
    if (object_ != nullptr) {
      object_->hold();
    }
  }
  T* object_ = nullptr;
};

template <class T>
inline const Class* class_of = nullptr;  // set when the class is defined

// Registers a new object, whose one (held) reference the caller gets.
Object* adopt(Object* object, const Class& type);
void ensure_classes();

template <class T, class... Args>
Ref<T> make(Args&&... args) {
  ensure_classes();
  return Ref<T>::take(static_cast<T*>(adopt(new T(std::forward<Args>(args)...), *class_of<T>)));
}

// Puts a reference of the program in the current pool; without one, it leaks and is reported.
void autorelease(Object* object);
// Turns a held reference into one that the pool gives back, and returns the plain pointer.
template <class T>
T* autoreleased(Ref<T> object) {
  T* plain = object.detach();
  if (plain != nullptr) {
    plain->hold_to_client();
    autorelease(plain);
  }
  return plain;
}

// The live object at `pointer` (a constant string counts), or null and, with `role`, an error that
// says what the pointer is instead.
Object* resolve(const void* pointer, const char* role);

// "-[MTLBuffer length]" of the message being answered on this thread, or "".
std::string current_message();

}  // namespace softmetal
