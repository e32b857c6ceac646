// Classes, selectors and methods: the part of an Objective-C runtime that softmetal needs.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "environment.hpp"
#include "method.hpp"
#include "object.hpp"

struct objc_selector {
  std::string name;
  bool gives_ownership;  // alloc, new, copy, mutableCopy families: the caller owns the result
  bool initialises;      // init family
};

namespace softmetal {

struct Method {
  void (*call)() = nullptr;
  const char* signature = "";
  OsVersion since;
};

struct Class {
  std::string name;
  const Class* parent = nullptr;
  Object* (*create)() = nullptr;  // for alloc; null when only softmetal makes such objects
  std::unordered_map<const objc_selector*, Method> instance_methods;
  std::unordered_map<const objc_selector*, Method> class_methods;

  const Method* find(const objc_selector* selector, bool of_class) const;
};

objc_selector* selector(std::string_view name);
Class* find_class(std::string_view name);
bool is_class(const void* pointer);
std::vector<const Class*> all_classes();
Class& add_class(std::string name, const Class* parent);

// Whether `receiver` has the method, on the system that is played.
bool responds(const void* receiver, const objc_selector* selector);

template <class T, auto Member>
struct Property;

template <class T, class Owner, class Value, Value Owner::* Member>
struct Property<T, Member> {
  static Value get(const T& self) { return self.*Member; }
  static void set(T& self, Value value) { self.*Member = value; }
};

template <class T, class Owner, class Value, Ref<Value> Owner::* Member>
struct Property<T, Member> {
  static Value* get(const T& self) { return (self.*Member).get(); }
  static void set(T& self, Value* value) { self.*Member = value; }
};

// Collects the methods of one class.
template <class T>
class Definition {
 public:
  Definition(std::string name, const Class* parent) : class_(add_class(std::move(name), parent)) {
    class_of<T> = &class_;
  }
  // More methods of a class that exists.
  Definition() : class_(const_cast<Class&>(*class_of<T>)) {}
  template <auto Function>
  Definition& method(const char* name, OsVersion since = {}) {
    using Call = InstanceCall<T, Function>;
    class_.instance_methods[selector(name)] = {reinterpret_cast<void (*)()>(&Call::call),
                                               Call::signature(), since};
    return *this;
  }
  template <auto Function>
  Definition& class_method(const char* name, OsVersion since = {}) {
    using Call = ClassCall<Function>;
    class_.class_methods[selector(name)] = {reinterpret_cast<void (*)()>(&Call::call),
                                            Call::signature(), since};
    return *this;
  }
  // `Function` returns void and fills an object that alloc made.
  template <auto Function>
  Definition& initialiser(const char* name, OsVersion since = {}) {
    using Call = InitialiserCall<T, Function>;
    class_.instance_methods[selector(name)] = {reinterpret_cast<void (*)()>(&Call::call),
                                               Call::signature(), since};
    return *this;
  }
  // A getter called `name` and its setter.
  template <auto Member>
  Definition& property(const std::string& name, OsVersion since = {}) {
    using Access = Property<T, Member>;
    std::string setter = "set" + name + ":";
    setter[3] = static_cast<char>(setter[3] - 'a' + 'A');
    method<&Access::get>(name.c_str(), since);
    return method<&Access::set>(setter.c_str(), since);
  }
  // Lets the program write alloc()->init().
  Definition& allocatable() {
    class_.create = [] { return static_cast<Object*>(new T); };
    return initialiser<&Definition::nothing>("init");
  }

 private:
  static void nothing(T&) {}
  Class& class_;
};

// One function per source file that defines classes; called once, in this order.
void define_object();
void define_strings();
void define_foundation_values();
void define_foundation_collections();
void define_foundation_system();
void define_device();
void define_resources();
void define_heap();
void define_library();
void define_pipeline();
void define_command_buffer();
void define_encoders();
void define_synchronisation();
void define_capture();

}  // namespace softmetal
