// Scalar conversions to and from the 16-bit floating-point types: IEEE binary16 (f16) and bfloat16
// (bf16). To 16 bits: round to nearest, ties to even, once; overflow gives infinity, NaN stays NaN
// (quiet, sign kept).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace ingot {

/// Bits of the nearest number with an exponent field of `exponent_bits` and a fraction of
/// `fraction_bits`. Takes double, which holds every float, so that no value is rounded twice.
template <int exponent_bits, int fraction_bits>
constexpr std::uint16_t encode_16_bits(double x) {
  static_assert(exponent_bits + fraction_bits == 15);
  constexpr std::int64_t bias = (1 << (exponent_bits - 1)) - 1;
  constexpr std::int64_t exponent_min =
      1 - bias;  // of normal numbers; subnormal ones share its spacing
  constexpr std::uint64_t infinity = ((1ULL << exponent_bits) - 1) << fraction_bits;

  const auto bits = std::bit_cast<std::uint64_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 63 << 15);
  const std::uint64_t magnitude = bits & 0x7FFF'FFFF'FFFF'FFFFULL;
  if (magnitude > 0x7FF0'0000'0000'0000ULL) {
    return static_cast<std::uint16_t>(sign | infinity | (1ULL << (fraction_bits - 1)));
  }
  const std::int64_t exponent = static_cast<std::int64_t>(magnitude >> 52) - 1023;
  if (exponent > bias) return static_cast<std::uint16_t>(sign | infinity);
  const std::int64_t shift =
      52 - fraction_bits + std::max<std::int64_t>(0, exponent_min - exponent);
  if (shift > 53) return sign;  // below half of the smallest subnormal number

  const std::uint64_t significand = (magnitude & 0x000F'FFFF'FFFF'FFFFULL) | (1ULL << 52);
  const std::uint64_t to_even = (1ULL << (shift - 1)) - 1 + ((significand >> shift) & 1);
  const std::uint64_t rounded = (significand + to_even) >> shift;
  // The implicit bit of `rounded`, and its carry when rounding up, add one to the exponent field.
  const auto field = static_cast<std::uint64_t>(std::max(exponent, exponent_min) - exponent_min);
  return static_cast<std::uint16_t>(sign | std::min((field << fraction_bits) + rounded, infinity));
}

constexpr std::uint16_t to_f16(double x) { return encode_16_bits<5, 10>(x); }
constexpr std::uint16_t to_bf16(double x) { return encode_16_bits<8, 7>(x); }

constexpr float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

constexpr float from_f16(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t field = (bits >> 10) & 0x1FU;
  const std::uint32_t fraction = bits & 0x3FFU;
  if (field == 0) {
    const float subnormal = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(subnormal) | sign);
  }
  const std::uint32_t exponent = field == 0x1FU ? 0xFFU : field + 112;
  return std::bit_cast<float>(sign | (exponent << 23) | (fraction << 13));
}

}  // namespace ingot
