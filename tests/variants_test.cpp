// src/algorithm/band.h and src/variants/: what a row sees as intervals, and the numbers of dropout,
// against plain definitions. Kernels of every device include these texts.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>

namespace ingot_variants_test {
template <class F>
F exp2_(F x) {
  return std::exp2(x);
}
template <class F>
F tanh_(F x) {
  return std::tanh(x);
}
inline float abs_(float x) { return std::fabs(x); }
inline float max_(float x, float y) { return x < y ? y : x; }
inline float finite_or_(float x, float y) { return std::isinf(x) && x < 0 ? y : x; }
inline void multiply_wide(unsigned a, unsigned b, unsigned& high, unsigned& low) {
  const std::uint64_t product = std::uint64_t{a} * b;
  high = static_cast<unsigned>(product >> 32);
  low = static_cast<unsigned>(product);
}
}  // namespace ingot_variants_test

#define INGOT_NAMESPACE ingot_variants_test
#define INGOT_INDEX std::int64_t
#include "algorithm/band.h"
#include "variants/alibi.h"
#include "variants/dropout.h"

namespace {

using namespace ingot_variants_test;

/// Lengths, causal, the window's right bound and a prefix; left is unbounded.
struct PrefixMask {
  Index seqlen_q, seqlen_k;
  int causal;
  Index right, prefix;

  Band band() const {
    return {make_score_params(1, 0, seqlen_q, seqlen_k, causal, -1, right), prefix};
  }
  bool visible(Index row, Index col) const {
    const Index p = causal == 1 ? row : row + seqlen_k - seqlen_q;
    if (col < prefix) return true;
    if (causal != 0 && col > p) return false;
    return right == -1 || col <= p + right;
  }
  std::string text() const {
    return "seqlen_q " + std::to_string(seqlen_q) + " seqlen_k " + std::to_string(seqlen_k) +
           " causal " + std::to_string(causal) + " right " + std::to_string(right) + " prefix " +
           std::to_string(prefix);
  }
};

template <class F>
void for_each_mask(F&& f) {
  for (const Index q : {1, 2, 3, 5, 8, 13}) {
    for (const Index k : {1, 2, 3, 5, 8, 13}) {
      for (const int causal : {0, 1, 2}) {
        for (const Index right : {-1, 0, 2, 30}) {
          for (Index prefix = 0; prefix <= k; ++prefix) f(PrefixMask{q, k, causal, right, prefix});
        }
      }
    }
  }
}

TEST(Band, VisibleIsWhatTheHeaderSays) {
  for_each_mask([](const PrefixMask& m) {
    const Band band = m.band();
    bool all = true;
    for (Index row = 0; row < m.seqlen_q; ++row) {
      for (Index col = 0; col < m.seqlen_k; ++col) {
        ASSERT_EQ(band.visible(row, col), m.visible(row, col)) << m.text();
        all = all && m.visible(row, col);
      }
    }
    if (all) return;
    ASSERT_TRUE(band.is_masked()) << m.text();
  });
}

TEST(Band, RangesHoldExactlyTheVisibleColsAndRows) {
  for_each_mask([](const PrefixMask& m) {
    const Band band = m.band();
    for (Index row = 0; row < m.seqlen_q; ++row) {
      for (Index col = 0; col < m.seqlen_k; ++col) {
        const bool seen = m.visible(row, col);
        ASSERT_EQ(col >= band.col_begin(row) && col < band.col_end(row), seen) << m.text();
        ASSERT_EQ(row >= band.row_begin(col) && row < band.row_end(col), seen) << m.text();
      }
    }
  });
}

TEST(Band, ABlockIsFullExactlyWhereEveryPairIsVisible) {
  for_each_mask([](const PrefixMask& m) {
    const Band band = m.band();
    for (Index row = 0; row < m.seqlen_q; row += 2) {
      for (Index col = 0; col < m.seqlen_k; col += 3) {
        const Index row_last = std::min(row + 1, m.seqlen_q - 1);
        const Index col_last = std::min(col + 2, m.seqlen_k - 1);
        bool full = true;
        for (Index r = row; r <= row_last; ++r) {
          for (Index c = col; c <= col_last; ++c) full = full && m.visible(r, c);
        }
        ASSERT_EQ(band.is_full(row, row_last, col, col_last), full) << m.text();
      }
    }
  });
}

TEST(Alibi, PositionsAreThoseOfTheWindow) {
  EXPECT_EQ(position_shift(0, 3, 10), 7);
  EXPECT_EQ(position_shift(1, 3, 10), 0);
  EXPECT_EQ(position_shift(2, 10, 3), -7);
  EXPECT_EQ(alibi_penalty(0.5F, -4.0F), 2.0F);
  EXPECT_EQ(alibi_penalty(0.5F, 4.0F), 2.0F);
}

/// The test vectors of the authors' library, Random123 (kat_vectors, philox4x32 10).
TEST(Dropout, TheGeneratorIsPhilox4x32WithTenRounds) {
  struct Known {
    std::array<unsigned, 4> counter;
    std::array<unsigned, 2> key;
    std::array<unsigned, 4> result;
  };
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Known& k : known) {
    DropoutParams params = make_dropout_params(0.5F, 0, 0);
    params.seed_low = k.key[0], params.seed_high = k.key[1], params.offset = k.counter[3];
    const auto numbers = dropout_numbers(params, k.counter[1], k.counter[0], k.counter[2]);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(numbers.word[i], k.result[i]) << i;
  }
}

TEST(Dropout, ProbabilitiesAreRoundedAndTheFactorKeepsTheMean) {
  for (const float p : {0x1p-16F, 0.1F, 0.5F, 0.9F, 1 - 0x1p-16F}) {
    const DropoutParams params = make_dropout_params(p, 1, 2);
    const double rounded = params.threshold / 65536.0;
    EXPECT_NEAR(rounded, p, 0x1p-17 + 1e-9);
    EXPECT_NEAR(params.factor * (1 - rounded), 1.0, 1e-6);
  }
}

TEST(Dropout, EightPairsOfASquareShareOneCall) {
  for (Index row = 0; row < 64; ++row) {
    for (Index col = 0; col < 64; ++col) {
      const Index first_row = row / 16 * 16 + row % 8, first_col = col / 16 * 16 + col % 8 / 2 * 2;
      EXPECT_EQ(dropout_row(row), dropout_row(first_row));
      EXPECT_EQ(dropout_col(col), dropout_col(first_col));
    }
  }
}

}  // namespace
