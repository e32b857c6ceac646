#include "dtype.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace ingot::cli {
namespace {

struct Row {
  ingot_dtype dtype;
  std::string_view name;
  std::string_view long_name;
  std::size_t bytes;
};

constexpr std::array<Row, 7> rows{{{INGOT_F32, "f32", "float32", 4},
                                   {INGOT_F16, "f16", "float16", 2},
                                   {INGOT_BF16, "bf16", "bfloat16", 2},
                                   {INGOT_F64, "f64", "float64", 8},
                                   {U8, "u8", "uint8", 1},
                                   {I32, "i32", "int32", 4},
                                   {I64, "i64", "int64", 8}}};

// IEEE half to double, exact.
double half_to_double(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  double value = 0;
  if (exponent == 31) {
    value = mantissa != 0 ? std::nan("") : HUGE_VAL;
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else {
    value = std::ldexp(mantissa + 1024, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

// nearbyint() rounds halves to even, so scaling by the spacing of the target rounds once and
// exactly.
std::uint16_t double_to_half(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (magnitude >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7c00);
  int exponent = magnitude > 0 ? std::ilogb(magnitude) : -14;
  if (exponent < -14) exponent = -14;
  // Units of the last place; a carry out of the mantissa lands in the exponent field, as it should.
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<std::uint16_t>(sign | (((exponent + 14) << 10) + units));
}

std::uint16_t double_to_bfloat(double value) {
  if (std::isnan(value)) return 0x7fc0;
  if (std::isinf(value) || value == 0) {
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >>
                                      16);
  }
  int exponent = std::ilogb(value);
  if (exponent < -126) exponent = -126;
  const double spacing = std::ldexp(1.0, exponent - 7);
  const auto rounded = static_cast<float>(std::nearbyint(value / spacing) * spacing);
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(rounded) >> 16);
}

template <class T>
T load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

template <class T>
void store(std::byte* data, T value) {
  std::memcpy(data, &value, sizeof value);
}

}  // namespace

std::string_view dtype_name(ingot_dtype dtype) {
  for (const Row& row : rows) {
    if (row.dtype == dtype) return row.name;
  }
  return "default";
}

std::size_t dtype_bytes(ingot_dtype dtype) {
  for (const Row& row : rows) {
    if (row.dtype == dtype) return row.bytes;
  }
  return 0;
}

std::optional<ingot_dtype> dtype_from_name(std::string_view name) {
  for (const Row& row : rows) {
    if (row.dtype <= INGOT_F64 && (row.name == name || row.long_name == name)) return row.dtype;
  }
  return std::nullopt;
}

double read_element(const std::byte* element, ingot_dtype dtype) {
  switch (dtype) {
    case INGOT_F64:
      return load<double>(element);
    case INGOT_F16:
      return half_to_double(load<std::uint16_t>(element));
    case INGOT_BF16: {
      const auto bits = static_cast<std::uint32_t>(load<std::uint16_t>(element)) << 16;
      return static_cast<double>(std::bit_cast<float>(bits));
    }
    case U8:
      return load<std::uint8_t>(element);
    case I32:
      return load<std::int32_t>(element);
    case I64:
      return static_cast<double>(load<std::int64_t>(element));
    default:
      return static_cast<double>(load<float>(element));
  }
}

void write_element(double value, ingot_dtype dtype, std::byte* element) {
  switch (dtype) {
    case INGOT_F64:
      store(element, value);
      break;
    case INGOT_F16:
      store(element, double_to_half(value));
      break;
    case INGOT_BF16:
      store(element, double_to_bfloat(value));
      break;
    case U8:
      store(element, static_cast<std::uint8_t>(value));
      break;
    case I32: {
      const double least = INT32_MIN, most = INT32_MAX;
      store(element, static_cast<std::int32_t>(std::clamp(value, least, most)));
      break;
    }
    case I64:
      store(element, static_cast<std::int64_t>(value));
      break;
    default:
      store(element, static_cast<float>(value));
      break;
  }
}

}  // namespace ingot::cli
