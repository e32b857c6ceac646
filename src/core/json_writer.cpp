#include "core/json_writer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace ingot {
namespace {

struct Sequence {
  unsigned char first, last;              // of the first byte
  std::size_t bytes;                      // in all
  unsigned char second_low, second_high;  // what rules out longer forms than need be, surrogates
};

// Well-formed sequences of UTF-8 beyond ASCII, as table 3-7 of the Unicode standard has them.
constexpr Sequence sequences[] = {
    {0xC2, 0xDF, 2, 0x80, 0xBF}, {0xE0, 0xE0, 3, 0xA0, 0xBF}, {0xE1, 0xEC, 3, 0x80, 0xBF},
    {0xED, 0xED, 3, 0x80, 0x9F}, {0xEE, 0xEF, 3, 0x80, 0xBF}, {0xF0, 0xF0, 4, 0x90, 0xBF},
    {0xF1, 0xF3, 4, 0x80, 0xBF}, {0xF4, 0xF4, 4, 0x80, 0x8F},
};

/// Bytes of the character that text begins with; 0 where that is none.
std::size_t character_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return 1;
  for (const Sequence& s : sequences) {
    if (byte(0) < s.first || byte(0) > s.last) continue;
    if (text.size() < s.bytes || byte(1) < s.second_low || byte(1) > s.second_high) return 0;
    for (std::size_t i = 2; i < s.bytes; ++i) {
      if ((byte(i) & 0xC0) != 0x80) return 0;
    }
    return s.bytes;
  }
  return 0;
}

/// A character of ASCII as JSON has it within quotes.
void append_escaped(std::string& out, char c) {
  constexpr char digits[] = "0123456789abcdef";
  if (c == '"' || c == '\\') {
    (out += '\\') += c;
  } else if (c == '\n') {
    out += "\\n";
  } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
    ((out += "\\u00") += digits[c / 16]) += digits[c % 16];
  } else {
    out += c;
  }
}

}  // namespace

void JsonWriter::key(std::string_view name) {
  next();
  quote(name);
  text_ += ": ";
  after_key_ = true;
}

void JsonWriter::value(std::string_view text) {
  next();
  quote(text);
}

void JsonWriter::value(double number) {
  if (!std::isfinite(number)) return scalar("null");
  char buffer[40];
  for (int precision = 15; precision <= 17; ++precision) {  // the first that reads back the same
    std::snprintf(buffer, sizeof buffer, "%.*g", precision, number);
    if (std::strtod(buffer, nullptr) == number) break;
  }
  next();
  bool is_integer = true;
  for (const char c : std::string_view(buffer)) {
    const bool is_point = std::string_view("+-0123456789e").find(c) == std::string_view::npos;
    if (!is_point) text_ += c;
    if (is_point && text_.back() != '.') text_ += '.';  // whatever the locale has in its place
    is_integer = is_integer && !is_point && c != 'e';
  }
  if (is_integer) text_ += ".0";  // a reader shall see a float
}

void JsonWriter::open(char bracket) {
  next();
  text_ += bracket;
  ++depth_;
  is_first_ = true;
}

void JsonWriter::close(char bracket) {
  --depth_;
  if (!is_first_) (text_ += '\n').append(static_cast<std::size_t>(2 * depth_), ' ');
  text_ += bracket;
  is_first_ = false;
}

void JsonWriter::next() {
  if (!after_key_ && depth_ > 0) {
    if (!is_first_) text_ += ',';
    (text_ += '\n').append(static_cast<std::size_t>(2 * depth_), ' ');
  }
  after_key_ = false;
  is_first_ = false;
}

void JsonWriter::scalar(std::string_view text) {
  next();
  text_ += text;
}

void JsonWriter::quote(std::string_view text) {
  text_ += '"';
  while (!text.empty()) {
    const std::size_t bytes = character_bytes(text);
    if (bytes == 1) {
      append_escaped(text_, text.front());
    } else if (bytes == 0) {
      text_ += "\\ufffd";
    } else {
      text_ += text.substr(0, bytes);
    }
    text.remove_prefix(std::max<std::size_t>(bytes, 1));
  }
  text_ += '"';
}

}  // namespace ingot
