// Foundation's values and collections. All are immutable.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "object.hpp"

namespace softmetal {

class String : public Object {
 public:
  explicit String(std::string value = {}) : value_(std::move(value)) {}
  const std::string& value() const { return value_; }
  void assign(std::string value) { value_ = std::move(value); }

  std::string description() const override { return value_; }
  Ref<Object> copy() override { return this; }
  bool is_equal(const Object& other) const override;
  std::size_t hash_value() const override { return std::hash<std::string>()(value_); }

 private:
  std::string value_;  // UTF-8
};

Ref<String> make_string(std::string value);
// The string behind a constant that the compiler emitted (MTLSTR).
Object* constant_string(const void* pointer);
// "" for null.
inline std::string value_of(const String* string) {
  return string != nullptr ? string->value() : std::string();
}

class Number : public Object {
 public:
  using Value = std::variant<bool, std::int64_t, std::uint64_t, double>;
  explicit Number(Value value = false) : value_(value) {}
  void assign(Value value) { value_ = value; }
  std::string description() const override;
  Ref<Object> copy() override { return this; }
  bool is_equal(const Object& other) const override;
  std::size_t hash_value() const override { return std::hash<double>()(as<double>()); }
  template <class T>
  T as() const {
    return std::visit([](auto value) { return static_cast<T>(value); }, value_);
  }

 private:
  Value value_;
};

class Data : public Object {
 public:
  explicit Data(std::vector<std::byte> bytes = {}) : bytes_(std::move(bytes)) {}
  void* mutable_bytes() { return bytes_.data(); }
  std::uint64_t length() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

class Url : public Object {
 public:
  explicit Url(std::string path = {}) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  void assign(std::string path) { path_ = std::move(path); }
  const char* file_system_representation() const { return path_.c_str(); }
  std::string description() const override { return "file://" + path_; }
  Ref<Object> copy() override { return this; }

 private:
  std::string path_;
};

class Array : public Object {
 public:
  using Items = std::vector<Ref<Object>>;
  explicit Array(Items items = {}) : items_(std::move(items)) {}
  const Items& items() const { return items_; }
  void assign(Items items) { items_ = std::move(items); }
  std::string description() const override;
  Ref<Object> copy() override { return this; }
  bool is_equal(const Object& other) const override;
  std::size_t hash_value() const override { return items_.size(); }
  std::uint64_t count() const { return items_.size(); }
  Object* at(std::uint64_t index) const;

 private:
  Items items_;
};

class Dictionary : public Object {
 public:
  using Items = std::vector<std::pair<Ref<Object>, Ref<Object>>>;  // key, value
  explicit Dictionary(Items items = {}) : items_(std::move(items)) {}
  const Items& items() const { return items_; }
  void assign(Items items) { items_ = std::move(items); }
  std::string description() const override;
  Ref<Object> copy() override { return this; }
  std::uint64_t count() const { return items_.size(); }
  Object* find(Object* key) const;

 private:
  Items items_;
};

class Error : public Object {
 public:
  Error() = default;
  Error(Ref<String> domain, std::int64_t code, Ref<Dictionary> info)
      : domain_(std::move(domain)), info_(std::move(info)), code_(code) {}
  void assign(Ref<String> domain, std::int64_t code, Ref<Dictionary> info);
  std::int64_t code() const { return code_; }
  String* domain() const { return domain_.get(); }
  Dictionary* user_info() const { return info_.get(); }
  std::string description() const override;
  Ref<Object> copy() override { return this; }
  // The text under NSLocalizedDescription, or one made of domain and code.
  Ref<String> localized_description() const;

 private:
  Ref<String> domain_;
  Ref<Dictionary> info_;
  std::int64_t code_ = 0;
};

// An error with a localised description.
Ref<Error> make_error(std::string_view domain, std::int64_t code, std::string description);

}  // namespace softmetal
