#include "safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "failure.hpp"
#include "safetensors_header.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

using nlohmann::json;

constexpr std::size_t length_bytes = 8;
constexpr std::size_t max_header = 100'000'000;  // the format's own limit

// Bits of an element, for those types whose sizes can be checked; 0: any other, which is of no
// concern until its tensor is asked for.
std::int64_t element_bits(const std::string& dtype) {
  static const std::map<std::string, std::int64_t> bits{
      {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8},    {"U8", 8},
      {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
      {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},
      {"F32", 32}, {"I64", 64},    {"U64", 64},    {"F64", 64},    {"C64", 64}};
  const auto found = bits.find(dtype);
  return found == bits.end() ? 0 : found->second;
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

std::int64_t bytes_of(const Shape& shape, std::int64_t bits) {
  if (bits % 8 == 0) return checked_bytes(shape, static_cast<std::size_t>(bits / 8));
  const std::int64_t elements = checked_bytes(shape, 1);
  if (elements % 8 * bits % 8 != 0) {
    throw Failure("shape " + shape_text(shape) + " of " + std::to_string(bits) +
                  " bits ends within a byte");
  }
  return elements / 8 * bits + elements % 8 * bits / 8;
}

TensorInfo tensor_of(const std::string& name, const HeaderEntry& entry, std::size_t data_begin,
                     std::size_t data_bytes) {
  if (static_cast<std::uint64_t>(entry.end) > data_bytes) {
    throw Failure("truncated: tensor " + quote(name) + " ends at byte " +
                  std::to_string(entry.end) + " of " + std::to_string(data_bytes));
  }
  const std::int64_t bits = element_bits(entry.dtype), have = entry.end - entry.begin;
  const std::int64_t need = bits == 0 ? have : bytes_of(entry.shape, bits);
  if (have != need) {
    throw Failure("tensor " + quote(name) + ": shape " + shape_text(entry.shape) + " of " +
                  entry.dtype + " takes " + std::to_string(need) +
                  " bytes, its data_offsets hold " + std::to_string(have));
  }
  return {entry.dtype, entry.shape, data_begin + static_cast<std::size_t>(entry.begin),
          data_begin + static_cast<std::size_t>(entry.end)};
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

std::string format_name(ingot_dtype dtype) {
  std::string name(dtype_name(dtype));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return name;
}

}  // namespace

SafetensorsInfo parse_safetensors(std::span<const std::byte> file) {
  const std::string_view text = header_text(file);
  SafetensorsHeader header = parse_safetensors_header(text);
  const std::size_t data_begin = length_bytes + text.size();
  SafetensorsInfo info;
  info.metadata = std::move(header.metadata);
  for (const auto& [name, entry] : header.tensors) {
    info.tensors.emplace_hint(info.tensors.end(), name,
                              tensor_of(name, entry, data_begin, file.size() - data_begin));
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
  throw Failure(path_ + ": dtype " + printable(info.dtype) + " of tensor " + quote(name) +
                " is not one of F16, BF16, F32, F64");
}

}  // namespace ingot::cli
