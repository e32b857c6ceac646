#include <CoreFoundation/CoreFoundation.h>

#include <map>
#include <mutex>

#include "foundation.hpp"
#include "runtime.hpp"

int __CFConstantStringClassReference[24] = {};

namespace softmetal {
namespace {

constexpr std::uint64_t ascii_encoding = 1;
constexpr std::uint64_t utf8_encoding = 4;

// How the compiler lays out the object behind MTLSTR.
struct ConstantString {
  const int* type;
  int flags;
  const void* characters;
  long length;
};
constexpr int flags_of_utf16 = 0x07D0;

void append_utf8(std::string& to, char32_t c) {
  if (c < 0x80) {
    to += static_cast<char>(c);
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr unsigned lead[] = {0, 0xC0, 0xE0, 0xF0};
  to += static_cast<char>(lead[more] | (c >> (6 * more)));
  for (int i = more - 1; i >= 0; --i) {
    to += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3F));
  }
}

std::u16string to_utf16(const std::string& utf8) {
  std::u16string result;
  for (std::size_t i = 0; i < utf8.size();) {
    const auto lead = static_cast<unsigned char>(utf8[i]);
    const std::size_t more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    char32_t c = more == 0 ? lead : lead & (0x3Fu >> more);
    for (std::size_t k = 1; k <= more && i + k < utf8.size(); ++k) {
      c = (c << 6) | (static_cast<unsigned char>(utf8[i + k]) & 0x3Fu);
    }
    i += more + 1;
    if (c >= 0x10000) {
      result += static_cast<char16_t>(0xD7C0 + (c >> 10));
      c = 0xDC00 | (c & 0x3FF);
    }
    result += static_cast<char16_t>(c);
  }
  return result;
}

std::string from_utf16(const char16_t* units, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) {
    char32_t c = units[i];
    if (c >= 0xD800 && c < 0xDC00 && i + 1 < count) {
      c = 0x10000 + ((c - 0xD800) << 10) + (units[++i] - 0xDC00u);
    }
    append_utf8(result, c);
  }
  return result;
}

bool supported(std::uint64_t encoding) {
  if (encoding == utf8_encoding || encoding == ascii_encoding) {
    return true;
  }
  error("unsupported",
        text(current_message(), ": encoding must be UTF-8 (4) or ASCII (1), not ", encoding));
  return false;
}

std::string from_c(const char* characters, std::uint64_t encoding) {
  if (characters == nullptr) {
    error("null-argument", text(current_message(), ": the C string must not be null"));
    return {};
  }
  return supported(encoding) ? std::string(characters) : std::string();
}

struct Range {
  std::uint64_t location;
  std::uint64_t length;
};

std::uint64_t length(const String& self) { return to_utf16(self.value()).size(); }

std::uint16_t character(const String& self, std::uint64_t index) {
  const std::u16string units = to_utf16(self.value());
  if (index >= units.size()) {
    error("out-of-range",
          text(current_message(), ": index ", index, " of a string of length ", units.size()));
    return 0;
  }
  return units[index];
}

const char* utf8(const String& self) { return self.value().c_str(); }

const char* c_string(const String& self, std::uint64_t encoding) {
  return supported(encoding) ? self.value().c_str() : nullptr;
}

std::uint64_t bytes_in(const String& self, std::uint64_t encoding) {
  return supported(encoding) ? self.value().size() : 0;
}

std::uint64_t bytes_at_most(const String& self, std::uint64_t encoding) {
  return supported(encoding) ? length(self) * 3 : 0;
}

Ref<String> appending(const String& self, String* other) {
  return make_string(self.value() + value_of(other));
}

Range range_of(const String& self, String* other, std::uint64_t) {
  const std::string wanted = value_of(other);
  const std::size_t at = self.value().find(wanted);
  return at == std::string::npos ? Range{INT64_MAX, 0} : Range{at, wanted.size()};
}

Ref<String> empty_string() { return make_string({}); }
Ref<String> with_string(String* other) { return make_string(value_of(other)); }
Ref<String> with_c_string(const char* characters, std::uint64_t encoding) {
  return make_string(from_c(characters, encoding));
}
void init_string(String& self, String* other) { self.assign(value_of(other)); }
void init_c_string(String& self, const char* characters, std::uint64_t encoding) {
  self.assign(from_c(characters, encoding));
}
void init_no_copy(String& self, void* bytes, std::uint64_t size, std::uint64_t encoding,
                  bool free_bytes) {
  if (supported(encoding)) {
    self.assign(std::string(static_cast<const char*>(bytes), size));
  }
  if (free_bytes) {
    std::free(bytes);
  }
}

}  // namespace

bool String::is_equal(const Object& other) const {
  const auto* string = dynamic_cast<const String*>(&other);
  return string != nullptr && string->value_ == value_;
}

Ref<String> make_string(std::string value) { return make<String>(std::move(value)); }

Object* constant_string(const void* pointer) {
  static std::mutex mutex;
  static auto* const known = new std::map<const void*, String*>;
  const std::lock_guard lock(mutex);
  String*& string = (*known)[pointer];
  if (string == nullptr) {
    const auto& constant = *static_cast<const ConstantString*>(pointer);
    const auto count = static_cast<std::size_t>(constant.length);
    string = make_string(constant.flags == flags_of_utf16
                             ? from_utf16(static_cast<const char16_t*>(constant.characters), count)
                             : std::string(static_cast<const char*>(constant.characters), count))
                 .detach();
    string->immortal = true;
  }
  return string;
}

void define_strings() {
  Definition<String>("NSString", class_of<Object>)
      .allocatable()
      .class_method<&empty_string>("string")
      .class_method<&with_string>("stringWithString:")
      .class_method<&with_c_string>("stringWithCString:encoding:")
      .initialiser<&init_string>("initWithString:")
      .initialiser<&init_c_string>("initWithCString:encoding:")
      .initialiser<&init_no_copy>("initWithBytesNoCopy:length:encoding:freeWhenDone:")
      .method<&length>("length")
      .method<&character>("characterAtIndex:")
      .method<&utf8>("UTF8String")
      .method<&utf8>("fileSystemRepresentation")
      .method<&c_string>("cStringUsingEncoding:")
      .method<&bytes_in>("lengthOfBytesUsingEncoding:")
      .method<&bytes_at_most>("maximumLengthOfBytesUsingEncoding:")
      .method<&String::equals>("isEqualToString:")
      .method<&appending>("stringByAppendingString:")
      .method<&range_of>("rangeOfString:options:");
}

}  // namespace softmetal

CFStringRef __CFStringMakeConstantString(const char* characters) {
  softmetal::Ref<softmetal::String> string = softmetal::make_string(characters);
  string->immortal = true;
  return reinterpret_cast<CFStringRef>(string.detach());
}
