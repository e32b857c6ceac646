// JSON as text, written from front to back. No tree is built: a document that does not fit in
// memory is std::bad_alloc here, which the destructor of a tree cannot promise.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace ingot {

class JsonWriter {
 public:
  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array() { open('['); }
  void end_array() { close(']'); }

  /// Of the member that the next call writes.
  void key(std::string_view name);

  void value(std::string_view text);  ///< what is not UTF-8 in it becomes U+FFFD
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool flag) { scalar(flag ? "true" : "false"); }
  void value(double number);
  void value(std::integral auto number) { scalar(std::to_string(number)); }

  template <class T>
  void member(std::string_view name, const T& of) {
    key(name);
    value(of);
  }

  const std::string& text() const { return text_; }

 private:
  void open(char bracket);
  void close(char bracket);
  void next();  // a comma, a line and its indentation, as the place needs them
  void scalar(std::string_view text);
  void quote(std::string_view text);

  std::string text_;
  int depth_ = 0;
  bool is_first_ = true;    // of its object or array
  bool after_key_ = false;  // on the key's line
};

}  // namespace ingot
