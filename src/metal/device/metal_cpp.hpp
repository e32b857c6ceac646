// Apple's metal-cpp, and how this folder uses it: everything owned is an NS::SharedPtr, and every
// entry point that sends a message opens an AutoreleaseScope.
#pragma once

#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>
#include <string>

namespace ingot::metal {

/// What Metal hands out unowned lives until this ends.
class AutoreleaseScope {
 public:
  AutoreleaseScope() : pool_(NS::AutoreleasePool::alloc()->init()) {}
  ~AutoreleaseScope() { pool_->release(); }
  AutoreleaseScope(const AutoreleaseScope&) = delete;
  AutoreleaseScope& operator=(const AutoreleaseScope&) = delete;

 private:
  NS::AutoreleasePool* pool_;
};

/// Unowned: lives as long as the scope around it.
inline NS::String* to_string(const std::string& text) {
  return NS::String::string(text.c_str(), NS::UTF8StringEncoding);
}

inline std::string text_of(NS::Error* error) {
  if (error == nullptr) return "no error is given";
  NS::String* description = error->localizedDescription();
  return description == nullptr ? "error without a description" : description->utf8String();
}

}  // namespace ingot::metal
