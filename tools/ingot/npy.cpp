#include "npy.hpp"

#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>

#include "failure.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t max_header = 65536;  // NumPy writes some 128 bytes
constexpr std::size_t max_rank = 64;       // as NumPy

/// What NumPy calls an element type: in files, as a letter, and by its name.
struct Type {
  const char *type, *letter, *name;
  ingot_dtype dtype;
  NpyElements elements;
};
constexpr Type types[] = {{"f2", "e", "float16", INGOT_F16, NpyElements::numbers},
                          {"f4", "f", "float32", INGOT_F32, NpyElements::numbers},
                          {"f8", "d", "float64", INGOT_F64, NpyElements::numbers},
                          {"b1", "?", "bool", U8, NpyElements::bytes},
                          {"u1", "B", "uint8", U8, NpyElements::bytes},
                          {"i4", "i", "int32", I32, NpyElements::lengths},
                          {"i8", "q", "int64", I64, NpyElements::lengths}};

/// The header is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, int version, NpyElements elements)
      : rest_(text), version_(version), elements_(elements) {}

  NpyInfo parse() {
    NpyInfo info;
    std::set<std::string_view> seen;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      if (!seen.insert(key).second) fail("key '" + shown(key) + "' appears twice");
      expect(':');
      value(key, info);
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (!rest_.empty()) fail("text after the closing brace");
    for (const std::string_view key : {"descr", "fortran_order", "shape"}) {
      if (!seen.contains(key)) fail("key '" + std::string(key) + "' is missing");
    }
    return info;
  }

 private:
  [[noreturn]] static void fail(const std::string& what) {
    throw Failure("bad .npy header: " + what);
  }

  static std::string shown(std::string_view text) { return printable(text.substr(0, 40)); }

  void skip_space() {
    const std::size_t begin = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(begin == std::string_view::npos ? rest_.size() : begin);
  }

  bool accept(char c) {
    skip_space();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool accept(std::string_view word) {
    skip_space();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail(std::string("'") + c + "' expected, found '" + shown(rest_) + "'");
  }

  std::string_view string() {
    skip_space();
    // u'' is a string of Python 2, as U"".
    if (rest_.size() > 1 && (rest_[0] == 'u' || rest_[0] == 'U') &&
        (rest_[1] == '\'' || rest_[1] == '"')) {
      rest_.remove_prefix(1);
    }
    const char quote = accept('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) fail("a string does not end");
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }

  void value(std::string_view key, NpyInfo& info) {
    if (key == "descr") {
      info.dtype = dtype();
    } else if (key == "fortran_order") {
      info.fortran_order = accept("True");
      if (!info.fortran_order && !accept("False")) fail("fortran_order is not True or False");
    } else if (key == "shape") {
      info.shape = shape();
    } else {
      fail("unknown key '" + shown(key) + "'");
    }
  }

  ingot_dtype dtype() {
    skip_space();
    if (rest_.starts_with('[')) throw Failure("structured dtypes are not supported");
    const std::string_view descr = string();
    // The order of the bytes, if there is one: little, this machine's, or not given.
    const std::size_t order = descr.find_first_of("<=|") == 0 ? 1 : 0;
    const std::string_view type = descr.substr(order);
    for (const Type& known : types) {
      const bool is_named = type == known.type || type == known.letter || descr == known.name;
      if (is_named && known.elements == elements_) return known.dtype;
    }
    static const char* const accepted[] = {"<f2, <f4, <f8", "|b1, |u1", "<i4, <i8"};
    std::string message = "dtype '" + shown(descr) + "' is not one of " +
                          accepted[static_cast<std::size_t>(elements_)];
    if (descr == ">f2" || descr == ">f4" || descr == ">f8") {
      message += "; convert big-endian data with x.astype('<" + std::string(descr.substr(1)) + "')";
    } else if (descr.find('O') != std::string_view::npos) {
      message += "; arrays of Python objects are never read";
    } else if (descr.find("V2") != std::string_view::npos) {
      message += "; bf16 travels in safetensors files (--in, --out)";
    }
    throw Failure(message);
  }

  // A tuple: (), (2,), (2, 3) or (2, 3,), but (2) is a number.
  Shape shape() {
    Shape result;
    expect('(');
    while (!accept(')')) {
      result.push_back(integer());
      if (result.size() > max_rank) fail("more than 64 axes");
      if (accept(',')) continue;
      if (result.size() == 1) fail("shape is a number in parentheses, not a tuple");
      expect(')');
      break;
    }
    return result;
  }

  // Decimal; as in Python, 0 may be written 00, but 6 not 06.
  std::int64_t integer() {
    skip_space();
    std::int64_t result = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), result);
    if (error == std::errc::result_out_of_range) fail("a size is over 2^63 - 1");
    if (error != std::errc()) fail("shape holds '" + shown(rest_) + "', not a size");
    const std::size_t sign = rest_.starts_with('-') ? 1 : 0;
    if (rest_[sign] == '0' && result != 0) {
      fail("shape holds '" + shown(rest_) + "': a size does not start with 0");
    }
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    // Python 2 wrote long integers as 6L.
    if (version_ < 3) accept('L');
    return result;
  }

  std::string_view rest_;
  int version_;
  NpyElements elements_;
};

std::size_t little_endian(std::span<const std::byte> bytes) {
  std::size_t value = 0;
  for (std::size_t i = bytes.size(); i > 0; --i) {
    value = value << 8 | std::to_integer<std::size_t>(bytes[i - 1]);
  }
  return value;
}

void check_size(const NpyInfo& info, std::size_t file_bytes) {
  const auto need = static_cast<std::size_t>(checked_bytes(info.shape, dtype_bytes(info.dtype)));
  const std::size_t have = file_bytes - info.data_offset;
  if (have == need) return;
  const std::string detail = "shape " + shape_text(info.shape) + " of " +
                             std::string(dtype_name(info.dtype)) + " takes " +
                             std::to_string(need) + " bytes, " + std::to_string(have) + " follow";
  throw Failure((have < need ? "truncated: " : "trailing bytes after the array: ") + detail);
}

}  // namespace

NpyInfo parse_npy(std::span<const std::byte> file, NpyElements elements) {
  if (file.size() < magic.size() || std::memcmp(file.data(), magic.data(), magic.size()) != 0) {
    throw Failure("not a .npy file (it does not start with \\x93NUMPY)");
  }
  if (file.size() < 10) throw Failure("truncated: the .npy header is incomplete");
  const auto version = std::to_integer<int>(file[6]), minor = std::to_integer<int>(file[7]);
  if (version < 1 || version > 3 || minor != 0) {
    throw Failure(".npy version " + std::to_string(version) +
                  (minor != 0 ? "." + std::to_string(minor) : "") + " is not 1, 2 or 3");
  }
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  const std::size_t header_begin = 8 + length_bytes;
  if (file.size() < header_begin) throw Failure("truncated: the .npy header is incomplete");
  const std::size_t header_bytes = little_endian(file.subspan(8, length_bytes));
  if (header_bytes > max_header) {
    throw Failure("header too large: " + std::to_string(header_bytes) + " bytes, at most " +
                  std::to_string(max_header) + " are read");
  }
  if (file.size() - header_begin < header_bytes) {
    throw Failure("truncated: the .npy header is incomplete");
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + header_begin;
  NpyInfo info = HeaderParser({text, header_bytes}, version, elements).parse();
  info.data_offset = header_begin + header_bytes;
  check_size(info, file.size());
  return info;
}

std::string npy_header(ingot_dtype dtype, const Shape& shape) {
  if (dtype == INGOT_BF16) {
    throw Failure(
        "the .npy format has no bf16: write safetensors (--in, --out) or --out-dtype f32");
  }
  std::string text = "{'descr': '<f" + std::to_string(dtype_bytes(dtype)) +
                     "', 'fortran_order': False, 'shape': (";
  for (const std::int64_t size : shape) text += std::to_string(size) + ", ";
  // NumPy writes (2, 3) but (2,): the comma alone makes a tuple of one.
  if (!shape.empty()) text.pop_back();
  if (shape.size() > 1) text.pop_back();
  text += "), }";
  const std::size_t unpadded = magic.size() + 4 + text.size() + 1;
  text += std::string((64 - unpadded % 64) % 64, ' ') + "\n";
  std::string header(magic);
  header += '\x01';
  header += '\0';
  header += static_cast<char>(text.size() & 255);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

Array load_npy(const MappedFile& file, NpyElements elements) {
  try {
    const NpyInfo info = parse_npy(file.span(), elements);
    // The pointer shares ownership of the mapping.
    const std::shared_ptr<std::byte> data(file.data, file.data.get() + info.data_offset);
    const Array array{info.dtype, info.shape, contiguous_strides(info.shape, info.fortran_order),
                      data};
    return aligned(array);
  } catch (const Failure& failure) {
    throw Failure(file.path + ": " + failure.what());
  }
}

}  // namespace ingot::cli
