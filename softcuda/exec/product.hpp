// Products of 16 rows, as fast as a compiler makes them.
#pragma once

#include <cstdint>

namespace softcuda {

inline constexpr int product_columns = 256;

/// 16 x 16 and 16 x N numbers of 16 bits, and 16 x N sums.
struct Operands {
  std::uint16_t a[16][16];
  std::uint16_t b[16][product_columns];
};
struct Sums {
  float x[16][product_columns];
};

/// sums += a b, in f32.
void multiply_add(Sums& sums, const Operands& operands, int columns, bool is_bf16);
/// The product of mma.m16n8k16.
void multiply_add(float (&sums)[16][8], const std::uint16_t (&a)[16][16],
                  const std::uint16_t (&b)[16][8], bool is_bf16);

}  // namespace softcuda
