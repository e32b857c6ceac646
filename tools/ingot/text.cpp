#include "text.hpp"

#include <array>
#include <cstdio>

namespace ingot::cli {
namespace {

struct Character {
  char32_t code = 0;
  std::size_t bytes = 0;  ///< 0: not UTF-8
};

// Strict: no longer form than needed, no surrogates, nothing above U+10FFFF.
Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return {byte(0), 1};
  const std::size_t bytes = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || text.size() < bytes) return {};
  char32_t code = byte(0) & (0x7FU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr std::array<char32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code < least[bytes] || surrogate || code > 0x10FFFF ? Character{} : Character{code, bytes};
}

struct Range {
  char32_t first, last;
};

// Controls; what turns the direction of text or takes no width; separators of lines; tags; and
// what is no character. An SVG may hold all others.
constexpr std::array<Range, 12> not_shown{{{0, 0x1F},
                                           {0x7F, 0x9F},
                                           {0xAD, 0xAD},
                                           {0x61C, 0x61C},
                                           {0x180E, 0x180E},
                                           {0x200B, 0x200F},
                                           {0x2028, 0x202E},
                                           {0x2060, 0x206F},
                                           {0xFEFF, 0xFEFF},
                                           {0xFFF9, 0xFFFB},
                                           {0xFFFE, 0xFFFF},
                                           {0xE0000, 0xE0FFF}}};

bool is_shown(char32_t code) {
  for (const Range& range : not_shown) {
    if (code >= range.first && code <= range.last) return false;
  }
  return (code & 0xFFFE) != 0xFFFE;
}

std::string escape(const char* format, char32_t code) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), format, static_cast<unsigned>(code));
  return text.data();
}

std::string escaped(char32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  return escape(code < 0x80 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
}

template <class Shown>
std::string rewritten(std::string_view text, Shown&& shown) {
  std::string result;
  while (!text.empty()) {
    const Character c = first_character(text);
    if (c.bytes == 0) {
      result += escape("\\x%02x", static_cast<unsigned char>(text[0]));
    } else {
      result += shown(c.code) ? std::string(text.substr(0, c.bytes)) : escaped(c.code);
    }
    text.remove_prefix(c.bytes == 0 ? 1 : c.bytes);
  }
  return result;
}

}  // namespace

std::string printable(std::string_view text) { return rewritten(text, is_shown); }

std::string printable_lines(std::string_view text) {
  return rewritten(text, [](char32_t code) { return code == '\n' || is_shown(code); });
}

std::string valid_utf8(std::string_view text) {
  return rewritten(text, [](char32_t) { return true; });
}

}  // namespace ingot::cli
