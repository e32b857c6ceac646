#include "exec/product.hpp"

#include <cstring>

namespace softcuda {
namespace {

using std::uint16_t;

float as_float(std::uint32_t bits) {
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

/// Without a branch, so that loops of it are vectorised: the exponent moves by a product, which
/// makes subnormal numbers right, too; infinities and NaNs get the largest exponent back.
float from_f16(uint16_t x) {
  const float scaled = as_float((x & 0x7FFFu) << 13) * 0x1p112F;
  std::uint32_t bits;
  std::memcpy(&bits, &scaled, sizeof bits);
  bits |= (x & 0x7C00u) == 0x7C00u ? 0x7F800000u : 0u;
  return as_float(bits | (x & 0x8000u) << 16);
}

template <bool IsBf16>
float to_float(uint16_t x) {
  if constexpr (IsBf16) {
    return as_float(static_cast<std::uint32_t>(x) << 16);
  } else {
    return from_f16(x);
  }
}

template <bool IsBf16>
void convert(float* to, const uint16_t* from, int count) {
  for (int i = 0; i < count; ++i) to[i] = to_float<IsBf16>(from[i]);
}

void convert(float* to, const uint16_t* from, int count, bool is_bf16) {
  if (is_bf16) {
    convert<true>(to, from, count);
  } else {
    convert<false>(to, from, count);
  }
}

/// Four rows by 16 columns at a time, which fit the registers.
void multiply_part(float* sums, const float* a, const float* b) {
  constexpr int columns = product_columns;
  float part[4][16];
  for (int r = 0; r < 4; ++r) std::memcpy(part[r], sums + r * columns, sizeof part[r]);
  for (int k = 0; k < 16; ++k) {
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 16; ++c) part[r][c] += a[r * 16 + k] * b[k * columns + c];
    }
  }
  for (int r = 0; r < 4; ++r) std::memcpy(sums + r * columns, part[r], sizeof part[r]);
}

}  // namespace

void multiply_add(Sums& sums, const Operands& operands, int columns, bool is_bf16) {
  float a[16][16];
  alignas(64) float b[16][product_columns];
  convert(a[0], operands.a[0], 256, is_bf16);
  for (int k = 0; k < 16; ++k) convert(b[k], operands.b[k], columns, is_bf16);
  for (int r = 0; r < 16; r += 4) {
    for (int c = 0; c < columns; c += 16) multiply_part(&sums.x[r][c], a[r], &b[0][c]);
  }
}

void multiply_add(float (&sums)[16][8], const uint16_t (&a)[16][16], const uint16_t (&b)[16][8],
                  bool is_bf16) {
  float wide_a[16][16], wide_b[16][8];
  convert(wide_a[0], a[0], 256, is_bf16);
  convert(wide_b[0], b[0], 128, is_bf16);
  for (int r = 0; r < 16; ++r) {
    for (int k = 0; k < 16; ++k) {
      for (int c = 0; c < 8; ++c) sums[r][c] += wide_a[r][k] * wide_b[k][c];
    }
  }
}

}  // namespace softcuda
