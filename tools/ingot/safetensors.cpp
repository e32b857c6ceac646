#include "safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>

#include "failure.hpp"

namespace ingot::cli {
namespace {

using nlohmann::json;

constexpr std::size_t length_bytes = 8;
constexpr std::size_t max_header = 100'000'000;  // the format's own limit

std::string quote(const std::string& name) {
  std::string text = "'";
  for (const char c : name.substr(0, 60)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + "'";
}

std::size_t element_bytes(const std::string& dtype) {
  static const std::map<std::string, std::size_t> bytes{
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  const auto found = bytes.find(dtype);
  return found == bytes.end() ? 0 : found->second;
}

std::string_view header_text(std::span<const std::byte> file) {
  if (file.size() < length_bytes) throw Failure("truncated: no safetensors header");
  std::uint64_t bytes = 0;
  for (std::size_t i = length_bytes; i > 0; --i) {
    bytes = bytes << 8 | std::to_integer<std::uint64_t>(file[i - 1]);
  }
  if (bytes > max_header) {
    throw Failure("header too large: " + std::to_string(bytes) +
                  " bytes, at most 100000000 are read (is this a safetensors file?)");
  }
  if (bytes > file.size() - length_bytes) {
    throw Failure("truncated: a header of " + std::to_string(bytes) + " bytes, " +
                  std::to_string(file.size() - length_bytes) + " follow");
  }
  return {reinterpret_cast<const char*>(file.data()) + length_bytes,
          static_cast<std::size_t>(bytes)};
}

// nlohmann-json keeps the last of two equal keys; here two tensors of one name are an error, and so
// is nesting deeper than the format has.
json parse_header(std::string_view text) {
  std::set<std::string> names;
  std::string repeated;
  bool deep = false;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::key && depth == 1) {
      auto name = value.get<std::string>();
      if (!names.insert(name).second) repeated = std::move(name);
    }
    deep = deep || depth > 3;
    return !deep;
  };
  const json header = json::parse(text, watch, false);
  if (deep) throw Failure("bad safetensors header: nested deeper than the format allows");
  if (!header.is_object()) throw Failure("bad safetensors header: not a JSON object");
  if (!repeated.empty()) {
    throw Failure("bad safetensors header: tensor " + quote(repeated) + " appears twice");
  }
  return header;
}

// A non-negative integer of at most 2^63 - 1.
std::int64_t size_of(const json& value, const std::string& where) {
  const bool valid = value.is_number_integer() &&
                     (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  if (!valid || value.get<std::int64_t>() < 0) {
    throw Failure("bad safetensors header: " + where + " holds " + quote(value.dump()) +
                  ", not a size");
  }
  return value.get<std::int64_t>();
}

Shape sizes_of(const json& entry, const char* key, const std::string& name) {
  const auto found = entry.find(key);
  const std::string where = std::string(key) + " of tensor " + quote(name);
  if (found == entry.end() || !found->is_array()) {
    throw Failure("bad safetensors header: " + where + " is not a list");
  }
  Shape sizes;
  for (const json& value : *found) sizes.push_back(size_of(value, where));
  return sizes;
}

TensorInfo parse_tensor(const std::string& name, const json& entry, std::size_t data_begin,
                        std::size_t data_bytes) {
  if (!entry.is_object())
    throw Failure("bad safetensors header: " + quote(name) + " is not an object");
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) {
    throw Failure("bad safetensors header: dtype of tensor " + quote(name) + " is not a string");
  }
  TensorInfo info{dtype->get<std::string>(), sizes_of(entry, "shape", name), 0, 0};
  const std::size_t bytes = element_bytes(info.dtype);
  if (bytes == 0) {
    throw Failure("tensor " + quote(name) + " has the unknown dtype " + quote(info.dtype));
  }
  const Shape offsets = sizes_of(entry, "data_offsets", name);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw Failure("bad safetensors header: data_offsets of tensor " + quote(name) +
                  " are not [begin, end]");
  }
  if (static_cast<std::uint64_t>(offsets[1]) > data_bytes) {
    throw Failure("truncated: tensor " + quote(name) + " ends at byte " +
                  std::to_string(offsets[1]) + " of " + std::to_string(data_bytes));
  }
  const std::int64_t need = checked_bytes(info.shape, bytes);
  if (offsets[1] - offsets[0] != need) {
    throw Failure("tensor " + quote(name) + ": shape " + shape_text(info.shape) + " of " +
                  info.dtype + " takes " + std::to_string(need) + " bytes, its data_offsets hold " +
                  std::to_string(offsets[1] - offsets[0]));
  }
  info.begin = data_begin + static_cast<std::size_t>(offsets[0]);
  info.end = data_begin + static_cast<std::size_t>(offsets[1]);
  return info;
}

// Tensors must tile the data, so that no byte of the file is unaccounted for.
void check_tiling(const SafetensorsInfo& info, std::size_t data_begin, std::size_t file_bytes) {
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  for (const auto& [name, tensor] : info.tensors) ranges.emplace_back(tensor.begin, tensor.end);
  std::sort(ranges.begin(), ranges.end());
  std::size_t position = data_begin;
  for (const auto& [begin, end] : ranges) {
    if (begin != position) {
      throw Failure(std::string("bad safetensors header: tensors ") +
                    (begin < position ? "overlap" : "leave a gap") + " at data byte " +
                    std::to_string(std::min(begin, position) - data_begin));
    }
    position = end;
  }
  if (position != file_bytes) {
    throw Failure("trailing bytes after the last tensor: " + std::to_string(file_bytes - position));
  }
}

std::map<std::string, std::string> parse_metadata(const json& entry) {
  std::map<std::string, std::string> metadata;
  if (!entry.is_object()) throw Failure("bad safetensors header: __metadata__ is not an object");
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) {
      throw Failure("bad safetensors header: metadata " + quote(key) + " is not a string");
    }
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

std::string format_name(ingot_dtype dtype) {
  std::string name(dtype_name(dtype));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return name;
}

}  // namespace

SafetensorsInfo parse_safetensors(std::span<const std::byte> file) {
  const std::string_view text = header_text(file);
  const json header = parse_header(text);
  const std::size_t data_begin = length_bytes + text.size();
  SafetensorsInfo info;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      info.metadata = parse_metadata(entry);
    } else {
      info.tensors[name] = parse_tensor(name, entry, data_begin, file.size() - data_begin);
    }
  }
  check_tiling(info, data_begin, file.size());
  return info;
}

std::string safetensors_header(const std::vector<std::pair<std::string, Array>>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t position = 0;
  for (const auto& [name, array] : tensors) {
    const std::size_t end = position + packed_bytes(array);
    header[name] = {{"dtype", format_name(array.dtype)},
                    {"shape", array.shape},
                    {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text = header.dump();
  text += std::string((8 - text.size() % 8) % 8, ' ');
  std::string length;
  for (std::size_t i = 0; i < length_bytes; ++i) {
    length += static_cast<char>(text.size() >> (8 * i) & 255);
  }
  return length + text;
}

SafetensorsFile::SafetensorsFile(std::string path)
    : path_(std::move(path)), file_(map_file(path_)) {
  try {
    info_ = parse_safetensors(file_.span());
  } catch (const Failure& failure) {
    throw Failure(path_ + ": " + failure.what());
  }
}

Array SafetensorsFile::tensor(const std::string& name) const {
  const auto found = info_.tensors.find(name);
  if (found == info_.tensors.end()) throw Failure(path_ + ": there is no tensor " + quote(name));
  const TensorInfo& info = found->second;
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16, INGOT_F32, INGOT_F64}) {
    if (info.dtype != format_name(dtype)) continue;
    const std::shared_ptr<std::byte> data(file_.data, file_.data.get() + info.begin);
    return aligned({dtype, info.shape, contiguous_strides(info.shape), data});
  }
  throw Failure(path_ + ": dtype " + info.dtype + " of tensor " + quote(name) +
                " is not one of F16, BF16, F32, F64");
}

}  // namespace ingot::cli
