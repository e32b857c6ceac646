// Dropout (Srivastava et al., 2014) of the weights that o is summed with. Which weights are taken
// is a function of the place alone, by the counter-based generator Philox4x32-10 (Salmon et al.,
// "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): the same on every device and for every
// shape of tiles.
//
// One call of the generator decides eight pairs of a square of 16 x 16: rows r and r + 8, cols c,
// c + 1, c + 8 and c + 9 (r < 8; c < 8 and even). They are what one thread of a tensor core's
// accumulator holds.
#ifndef INGOT_DROPOUT_H
#define INGOT_DROPOUT_H

#include "algorithm/params.h"

// An unsigned number of 64 bits; a compiler that has no long long defines it first.
#ifndef INGOT_BITS_64
#define INGOT_BITS_64 unsigned long long
#endif

namespace INGOT_NAMESPACE {

struct DropoutParams {
  unsigned seed_low, seed_high, offset;
  unsigned threshold;  // numbers of 16 bits below it are taken; 0: no dropout
  float factor;        // of the weights that stay
};

INGOT_FN DropoutParams make_dropout_params(float probability, INGOT_BITS_64 seed,
                                           INGOT_BITS_64 offset) {
  DropoutParams p;
  p.seed_low = static_cast<unsigned>(seed);
  p.seed_high = static_cast<unsigned>(seed >> 32) ^ static_cast<unsigned>(offset >> 32);
  p.offset = static_cast<unsigned>(offset);
  p.threshold = static_cast<unsigned>(probability * 65536.0f + 0.5f);
  p.factor = 65536.0f / (65536.0f - static_cast<float>(p.threshold));
  return p;
}

// The counters of a row and of a col.
INGOT_FN unsigned dropout_row(Index row) { return static_cast<unsigned>(row / 16 * 8 + row % 8); }
INGOT_FN unsigned dropout_col(Index col) {
  return static_cast<unsigned>(col / 16 * 4 + col % 8 / 2);
}

// Eight numbers of 16 bits. That of a pair is in word 2 * (row / 8 % 2) + col / 8 % 2, in the low
// half if col is even. U: unsigned, or a vector of them.
template <class U>
struct DropoutNumbers {
  U word[4];
};

// head: counts through the batch, batch * num_heads + head.
template <class U>
INGOT_FN DropoutNumbers<U> dropout_numbers(DropoutParams p, U row, U col, U head) {
  U c0 = col, c1 = row, c2 = head, c3 = U(p.offset);
  unsigned k0 = p.seed_low, k1 = p.seed_high;
  for (int round = 0; round < 10; ++round) {
    U high_0, low_0, high_2, low_2;
    multiply_wide(0xD2511F53u, c0, high_0, low_0);
    multiply_wide(0xCD9E8D57u, c2, high_2, low_2);
    c0 = high_2 ^ c1 ^ U(k0);
    c1 = low_2;
    c2 = high_0 ^ c3 ^ U(k1);
    c3 = low_0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  DropoutNumbers<U> numbers;
  numbers.word[0] = c0, numbers.word[1] = c1, numbers.word[2] = c2, numbers.word[3] = c3;
  return numbers;
}

// The number of one pair, and the factor of its weight.
INGOT_FN unsigned dropout_number(DropoutNumbers<unsigned> numbers, Index row, Index col) {
  const unsigned word = numbers.word[row / 8 % 2 * 2 + col / 8 % 2];
  return col % 2 == 0 ? word & 0xFFFFu : word >> 16;
}
INGOT_FN float dropout_keep(DropoutParams p, unsigned number) {
  return number < p.threshold ? 0.0f : p.factor;
}

}  // namespace INGOT_NAMESPACE
#endif
