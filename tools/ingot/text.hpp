// Text of others, shown to people and to programs: names, metadata and paths can hold any bytes,
// and a terminal obeys some of them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace ingot::cli {

/// The text on one line that a terminal only shows: control characters, those that turn or hide
/// text (bidi, zero width), and bytes that are not UTF-8 become "\n", "\x1b", "\u202e".
/// printable(printable(x)) is printable(x).
std::string printable(std::string_view text);

/// The same for a text of several lines; their ends stay.
std::string printable_lines(std::string_view text);

/// The text itself where it is UTF-8; bytes that are not become "\xfe". For strings of JSON.
std::string valid_utf8(std::string_view text);

/// JSON in ASCII, so that it is valid UTF-8 whatever the strings hold and a terminal only shows it.
template <class Json>
std::string json_text(const Json& json) {
  return json.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

}  // namespace ingot::cli
