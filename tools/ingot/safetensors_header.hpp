// The JSON header of a safetensors file, read in one pass.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "array.hpp"

namespace ingot::cli {

/// What the header says of one tensor; not yet held against the file.
struct HeaderEntry {
  std::string dtype;
  Shape shape;
  std::int64_t begin = 0, end = 0;  ///< bytes of the data, begin <= end
};

struct SafetensorsHeader {
  std::map<std::string, HeaderEntry> tensors;
  std::map<std::string, std::string> metadata;
};

/// Takes time in proportion to the text. Keys that appear twice, sizes that are not plain integers
/// and bytes around the object are refused, as the format does. Throws Failure.
SafetensorsHeader parse_safetensors_header(std::string_view text);

/// 'name', of printable characters and not longer than a line takes.
std::string quote(const std::string& name);

}  // namespace ingot::cli
