// Tensors for tests: any dtype, any layout, guard elements around them, and a NaN pattern wherever
// nothing was written. Needs ingot.h, cases.hpp and the standard library alone; conversions are
// written apart from the library's own.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cases.hpp"

namespace ingot::conformance {

using Index = std::int64_t;

/// Significant bits, smallest normal exponent and smallest infinite exponent of a dtype.
struct Format {
  int digits, exponent_min, exponent_end;
};

inline Format format_of(ingot_dtype dtype) {
  switch (dtype) {
    case INGOT_F16:
      return {11, -14, 16};
    case INGOT_BF16:
      return {8, -126, 128};
    case INGOT_F64:
      return {53, -1022, 1024};
    default:
      return {24, -126, 128};
  }
}

/// Half the distance from 1 to the next number.
inline double roundoff(ingot_dtype dtype) { return std::ldexp(1.0, -format_of(dtype).digits); }
inline double smallest(ingot_dtype dtype) {
  return std::ldexp(1.0, format_of(dtype).exponent_min - format_of(dtype).digits + 1);
}

/// x rounded to `digits` significant bits, to even on a tie, without limits to the exponent.
inline double round_digits(double x, int digits) {
  if (!std::isfinite(x) || x == 0) return x;
  const double quantum = std::ldexp(1.0, std::ilogb(x) - digits + 1);
  return std::nearbyint(x / quantum) * quantum;
}

/// The number of `dtype` nearest to x.
inline double round_to(double x, ingot_dtype dtype) {
  const Format f = format_of(dtype);
  if (!std::isfinite(x) || x == 0 || dtype == INGOT_F64) return x;
  const double quantum = std::ldexp(1.0, std::max(std::ilogb(x), f.exponent_min) - f.digits + 1);
  const double rounded = std::nearbyint(x / quantum) * quantum;
  const bool overflow = std::fabs(rounded) >= std::ldexp(1.0, f.exponent_end);
  return overflow ? std::copysign(std::numeric_limits<double>::infinity(), x) : rounded;
}

inline Index size_of(ingot_dtype dtype) {
  return dtype == INGOT_F64 ? 8 : dtype == INGOT_F32 ? 4 : 2;
}

inline std::uint16_t encode_half(double x, ingot_dtype dtype) {
  const Format f = format_of(dtype);
  const int fraction_bits = f.digits - 1;
  const unsigned sign = std::signbit(x) ? 0x8000U : 0U;
  const unsigned infinity = 0x7FFFU >> fraction_bits << fraction_bits;
  const double rounded = std::fabs(round_to(x, dtype));
  if (std::isnan(x))
    return static_cast<std::uint16_t>(sign | infinity | (1U << (fraction_bits - 1)));
  if (std::isinf(rounded)) return static_cast<std::uint16_t>(sign | infinity);
  if (rounded == 0) return static_cast<std::uint16_t>(sign);
  const int exponent = std::max(std::ilogb(rounded), f.exponent_min);
  const auto significand = static_cast<unsigned>(std::ldexp(rounded, fraction_bits - exponent));
  const auto field = static_cast<unsigned>(exponent - f.exponent_min);
  return static_cast<std::uint16_t>(sign | ((field << fraction_bits) + significand));
}

inline double decode_half(std::uint16_t bits, ingot_dtype dtype) {
  const Format f = format_of(dtype);
  const int fraction_bits = f.digits - 1;
  const int field = (bits & 0x7FFF) >> fraction_bits;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int largest_field = f.exponent_end - f.exponent_min + 1;
  double x = std::ldexp(fraction, f.exponent_min - fraction_bits);
  if (field == largest_field) {
    x = fraction == 0 ? std::numeric_limits<double>::infinity()
                      : std::numeric_limits<double>::quiet_NaN();
  } else if (field > 0) {
    x = std::ldexp(fraction + (1 << fraction_bits), f.exponent_min + field - 1 - fraction_bits);
  }
  return (bits & 0x8000) != 0 ? -x : x;
}

inline void write_element(std::byte* at, ingot_dtype dtype, double value) {
  if (dtype == INGOT_F64) {
    std::memcpy(at, &value, sizeof value);
  } else if (dtype == INGOT_F32) {
    const auto single = static_cast<float>(value);
    std::memcpy(at, &single, sizeof single);
  } else {
    const std::uint16_t bits = encode_half(value, dtype);
    std::memcpy(at, &bits, sizeof bits);
  }
}

inline double read_element(const std::byte* at, ingot_dtype dtype) {
  double wide = 0;
  float single = 0;
  std::uint16_t half = 0;
  switch (dtype) {
    case INGOT_F64:
      std::memcpy(&wide, at, sizeof wide);
      return wide;
    case INGOT_F32:
      std::memcpy(&single, at, sizeof single);
      return single;
    default:
      std::memcpy(&half, at, sizeof half);
      return decode_half(half, dtype);
  }
}

/// Quiet NaNs that no computation makes: an element that still holds one was not written.
inline std::uint64_t poison_bits(ingot_dtype dtype) {
  switch (dtype) {
    case INGOT_F64:
      return 0x7FFDA5A5A5A5A5A5ULL;
    case INGOT_F32:
      return 0x7FEDA5A5ULL;
    case INGOT_F16:
      return 0x7F6DULL;
    default:
      return 0x7FEDULL;
  }
}

using Shape = std::array<Index, 4>;

/// Elements before and after a buffer that nobody may write.
inline constexpr Index guard_elements = 64;

/// Memory with guards, filled with the NaN pattern.
class Buffer {
 public:
  Buffer(ingot_dtype dtype, Index elements)
      : dtype_(dtype),
        bytes_(static_cast<std::size_t>((elements + 2 * guard_elements) * size_of(dtype))) {
    const std::uint64_t bits = poison_bits(dtype);
    for (Index i = 0; i < elements + 2 * guard_elements; ++i) {
      std::memcpy(bytes_.data() + i * size_of(dtype), &bits,
                  static_cast<std::size_t>(size_of(dtype)));
    }
  }
  std::byte* at(Index element) {
    return bytes_.data() + (element + guard_elements) * size_of(dtype_);
  }
  const std::byte* at(Index element) const {
    return bytes_.data() + (element + guard_elements) * size_of(dtype_);
  }
  Index elements() const {
    return static_cast<Index>(bytes_.size()) / size_of(dtype_) - 2 * guard_elements;
  }
  ingot_dtype dtype() const { return dtype_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool poisoned(Index element) const {
    const std::uint64_t bits = poison_bits(dtype_);
    return std::memcmp(at(element), &bits, static_cast<std::size_t>(size_of(dtype_))) == 0;
  }

 private:
  ingot_dtype dtype_;
  std::vector<std::byte> bytes_;
};

/// A shape, strides, and the element of its buffer where (0, 0, 0, 0) lies.
struct View {
  Shape shape{};
  Shape stride{};
  Index origin = 0;

  Index element(Index b, Index h, Index s, Index d) const {
    return origin + b * stride[0] + h * stride[1] + s * stride[2] + d * stride[3];
  }
  /// Calls f(b, h, s, d) in order.
  template <class F>
  void for_each(F&& f) const {
    for (Index b = 0; b < shape[0]; ++b) {
      for (Index h = 0; h < shape[1]; ++h) {
        for (Index s = 0; s < shape[2]; ++s) {
          for (Index d = 0; d < shape[3]; ++d) f(b, h, s, d);
        }
      }
    }
  }
  Index count() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
};

/// Strides of `shape` in `layout`; `output`: no two elements at one address.
inline View make_view(const Shape& shape, Layout layout, bool output) {
  const auto [batch, heads, rows, dim] = shape;
  const auto rows_of = [&](Index row_stride, Index extra) -> Shape {
    const Index head = rows * row_stride + extra;
    return {heads * head + extra, head, row_stride, 1};
  };
  View v{shape, rows_of(dim, 0), 0};
  switch (layout) {
    case Layout::bhsd:
      break;
    case Layout::bshd:
    case Layout::packed_qkv:
      v.stride = {rows * heads * dim, dim, heads * dim, 1};
      break;
    case Layout::transposed:
      v.stride = {heads * dim * rows, dim * rows, 1, rows};
      break;
    case Layout::padded_rows:
      v.stride = rows_of(dim + 5, 3), v.origin = 1;
      break;
    case Layout::page_rows:
      v.stride = rows_of((dim + 1023) / 1024 * 1024 * 2, 0);
      break;
    case Layout::every_other:
      v.stride = rows_of(2 * dim, 0), v.stride[3] = 2;
      break;
    case Layout::broadcast_heads:
      if (!output) v.stride = {rows * dim, 0, dim, 1};
      break;
    case Layout::reversed:
      v.stride[1] = -v.stride[1], v.stride[2] = -v.stride[2];
      v.origin = std::max<Index>(0, heads * rows - 1) * dim;
      break;
  }
  return v;
}

/// Elements of a buffer that holds every element of v.
inline Index span_of(const View& v) {
  if (v.count() == 0) return 0;
  Index last = v.origin;
  for (std::size_t i = 0; i < 4; ++i) last += (v.shape[i] - 1) * std::max<Index>(0, v.stride[i]);
  // A reversed view's origin is its last element within a batch entry, so batches add on top of it.
  return last + 1;
}

inline ingot_tensor tensor_of(Buffer& buffer, const View& v) {
  return {buffer.at(v.origin), {v.stride[0], v.stride[1], v.stride[2], v.stride[3]}};
}

/// Numbers of a logical tensor, packed [batch, head, row, col].
struct Dense {
  Shape shape{};
  std::vector<double> data;

  Dense() = default;
  explicit Dense(const Shape& s)
      : shape(s), data(static_cast<std::size_t>(s[0] * s[1] * s[2] * s[3])) {}
  double* row(Index b, Index h, Index s) {
    return data.data() + ((b * shape[1] + h) * shape[2] + s) * shape[3];
  }
  const double* row(Index b, Index h, Index s) const {
    return data.data() + ((b * shape[1] + h) * shape[2] + s) * shape[3];
  }
};

inline Dense read_dense(const Buffer& buffer, const View& v) {
  Dense dense(v.shape);
  std::size_t i = 0;
  v.for_each([&](Index b, Index h, Index s, Index d) {
    dense.data[i++] = read_element(buffer.at(v.element(b, h, s, d)), buffer.dtype());
  });
  return dense;
}

/// "[b, h, s, d]"
inline std::string position(Index b, Index h, Index s, Index d) {
  return std::string("[") + std::to_string(b) + ", " + std::to_string(h) + ", " +
         std::to_string(s) + ", " + std::to_string(d) + "]";
}

/// Random numbers that are the same with every compiler and standard library.
class Random {
 public:
  explicit Random(const std::string& seed) {
    for (const char c : seed) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  }
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
  }

 private:
  std::uint64_t state_ = 0xCBF29CE484222325ULL;
};

}  // namespace ingot::conformance
