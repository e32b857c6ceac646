// src/algorithm/: the properties that every kernel builds on, against the words of ingot.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace ingot_score_test {
template <class F>
F exp2_(F x) {
  return std::exp2(x);
}
template <class F>
F tanh_(F x) {
  return std::tanh(x);
}
inline float max_(float x, float y) { return y > x || std::isnan(y) ? y : x; }
inline float finite_or_(float x, float y) {
  return x == -std::numeric_limits<float>::infinity() ? y : x;
}
}  // namespace ingot_score_test

#define INGOT_NAMESPACE ingot_score_test
#define INGOT_INDEX std::int64_t
#include "algorithm/online_softmax.h"
#include "algorithm/score.h"

namespace {

using namespace ingot_score_test;

constexpr float infinity = std::numeric_limits<float>::infinity();

struct Mask {
  Index seqlen_q, seqlen_k;
  int causal;
  Index left, right;

  ScoreParams params() const {
    return make_score_params(1, 0, seqlen_q, seqlen_k, causal, left, right);
  }

  /// As ingot.h says it.
  bool visible(Index row, Index col) const {
    const Index p = causal == 1 ? row : row + seqlen_k - seqlen_q;
    if (causal == 1 && col > row) return false;
    if (causal == 2 && col > row + seqlen_k - seqlen_q) return false;
    if (left != -1 && col < p - left) return false;
    return right == -1 || col <= p + right;
  }
};

std::string describe(const Mask& m) {
  return "seqlen_q " + std::to_string(m.seqlen_q) + " seqlen_k " + std::to_string(m.seqlen_k) +
         " causal " + std::to_string(m.causal) + " window " + std::to_string(m.left) + ", " +
         std::to_string(m.right);
}

template <class F>
void for_each_mask(F&& f) {
  const Index lengths[] = {1, 2, 3, 4, 5, 8, 13};
  const Index bounds[] = {-1, 0, 1, 2, 5, 30};
  for (const Index q : lengths) {
    for (const Index k : lengths) {
      for (const int causal : {0, 1, 2}) {
        for (const Index left : bounds) {
          for (const Index right : bounds) f(Mask{q, k, causal, left, right});
        }
      }
    }
  }
}

TEST(Score, VisibleIsWhatTheHeaderSays) {
  for_each_mask([](const Mask& m) {
    const ScoreParams p = m.params();
    bool all = true;
    for (Index row = 0; row < m.seqlen_q; ++row) {
      for (Index col = 0; col < m.seqlen_k; ++col) {
        ASSERT_EQ(visible(p, row, col), m.visible(row, col))
            << describe(m) << " at " << row << ", " << col;
        all = all && m.visible(row, col);
      }
    }
    ASSERT_EQ(is_masked(p), !all) << describe(m);
  });
}

/// [begin, end) is the hull of the positions where seen(position), or empty where there are none.
template <class F>
void expect_hull(Index begin, Index end, Index size, F&& seen, const std::string& what) {
  Index first = size, last = -1;
  for (Index i = 0; i < size; ++i) {
    if (!seen(i)) continue;
    first = std::min(first, i);
    last = i;
  }
  if (last < 0) {
    ASSERT_GE(begin, end) << what;
  } else {
    ASSERT_EQ(begin, first) << what;
    ASSERT_EQ(end, last + 1) << what;
  }
}

TEST(Score, RangesHoldExactlyTheVisibleColsAndRows) {
  for_each_mask([](const Mask& m) {
    const ScoreParams p = m.params();
    for (Index first = 0; first < m.seqlen_q; ++first) {
      for (Index last = first; last < m.seqlen_q; ++last) {
        const auto seen = [&](Index col) {
          for (Index row = first; row <= last; ++row) {
            if (m.visible(row, col)) return true;
          }
          return false;
        };
        expect_hull(col_begin(p, first), col_end(p, last), m.seqlen_k, seen,
                    describe(m) + " rows from " + std::to_string(first));
      }
    }
    for (Index first = 0; first < m.seqlen_k; ++first) {
      for (Index last = first; last < m.seqlen_k; ++last) {
        const auto seen = [&](Index row) {
          for (Index col = first; col <= last; ++col) {
            if (m.visible(row, col)) return true;
          }
          return false;
        };
        expect_hull(row_begin(p, first), row_end(p, last), m.seqlen_q, seen,
                    describe(m) + " cols from " + std::to_string(first));
      }
    }
  });
}

TEST(Score, ABlockIsFullExactlyWhereEveryPairIsVisible) {
  for_each_mask([](const Mask& m) {
    const ScoreParams p = m.params();
    for (Index row = 0; row < m.seqlen_q; ++row) {
      for (Index col = 0; col < m.seqlen_k; ++col) {
        const Index last_row = std::min(row + 2, m.seqlen_q - 1),
                    last_col = std::min(col + 3, m.seqlen_k - 1);
        bool all = true;
        for (Index r = row; r <= last_row; ++r) {
          for (Index c = col; c <= last_col; ++c) all = all && m.visible(r, c);
        }
        ASSERT_EQ(is_full(p, row, last_row, col, last_col), all)
            << describe(m) << " at " << row << ", " << col;
      }
    }
  });
}

TEST(Score, ExtremeLengthsAndWindowsDoNotOverflow) {
  const Index n = Index{1} << 40;
  for (const Index bound : {Index{0}, n, INT64_MAX - 1, INT64_MAX}) {
    for (const int causal : {0, 1, 2}) {
      const Mask m{n, n - 3, causal, bound, bound};
      const ScoreParams p = m.params();
      EXPECT_EQ(visible(p, n - 1, 0), bound >= n) << bound;
      EXPECT_EQ(visible(p, 0, n - 4), causal == 0 && bound >= n) << bound;
      EXPECT_TRUE(visible(p, n - 1, causal == 1 && bound == 0 ? n - 1 : n - 4));
      EXPECT_LE(col_end(p, n - 1), n - 3);
      EXPECT_GE(col_begin(p, 0), 0);
    }
  }
}

struct Plain {
  static constexpr bool softcap = false;
};
struct Capped {
  static constexpr bool softcap = true;
};

constexpr double log2_e = 1.4426950408889634;

template <class Config>
void check_value_and_derivative(float scale, float softcap) {
  const ScoreFactors f = make_score_factors(make_score_params(scale, softcap, 1, 1, 0, -1, -1));
  for (double s = -40; s <= 40; s += 0.37) {
    const double value =
        softcap > 0 ? softcap * std::tanh(double{scale} * s / softcap) : double{scale} * s;
    const double found = value_log2<Config>(f, s);
    ASSERT_NEAR(found, value * log2_e, 1e-6 * (1 + std::fabs(value))) << s;
    const double step = 1e-4;
    const double difference =
        (value_log2<Config>(f, s + step) - value_log2<Config>(f, s - step)) / (2 * step) / log2_e;
    ASSERT_NEAR(derivative<Config>(f, found), difference, 2e-6 * std::fabs(scale)) << s;
    const auto single = static_cast<float>(s);
    ASSERT_NEAR(derivative<Config>(f, value_log2<Config>(f, single)), difference,
                1e-5 * std::fabs(scale))
        << s;
  }
}

TEST(Score, DerivativeIsTheDerivativeOfValue) {
  for (const float scale : {1.0F, 0.125F, -0.7F, 3.0F}) {
    check_value_and_derivative<Plain>(scale, 0);
    for (const float softcap : {1.0F, 5.0F, 50.0F})
      check_value_and_derivative<Capped>(scale, softcap);
  }
}

/// log2 of the sum of exp2 over tiles of `width`.
float log2_sum(const std::vector<float>& scores, std::size_t width) {
  OnlineSoftmax<float> state{-infinity, 0};
  for (std::size_t first = 0; first < scores.size(); first += width) {
    const std::size_t last = std::min(first + width, scores.size());
    float tile_max = -infinity;
    for (std::size_t i = first; i < last; ++i) tile_max = max_(tile_max, scores[i]);
    state.raise_max(tile_max);
    for (std::size_t i = first; i < last; ++i) state.row_sum += exp2_(scores[i] - state.offset());
  }
  return state.row_max + std::log2(state.row_sum);
}

TEST(OnlineSoftmax, TilesGiveTheSumOfTheWholeRow) {
  const std::vector<float> scores = {-3, 5, 2.5F, -infinity, 7, 7, -100, 0, 90, 91, -infinity, 12};
  double sum = 0;
  for (const float s : scores) sum += std::exp2(static_cast<double>(s));
  for (std::size_t width = 1; width <= scores.size(); ++width) {
    EXPECT_NEAR(log2_sum(scores, width), std::log2(sum), 1e-5) << width;
  }
}

TEST(OnlineSoftmax, ARowWithoutKeysHasNoWeightAndTilesBeforeTheFirstKeyDoNoHarm) {
  for (const std::size_t width : {1U, 2U, 3U}) {
    EXPECT_EQ(log2_sum({-infinity, -infinity, -infinity}, width), -infinity);
    EXPECT_EQ(log2_sum({-infinity, -infinity, -500}, width), -500);
  }
}

TEST(OnlineSoftmax, NanAndInfinityMakeTheRowNan) {
  for (const std::size_t width : {1U, 2U, 5U}) {
    EXPECT_TRUE(std::isnan(log2_sum({1, std::nanf(""), 2, 3, 4}, width)));
    EXPECT_TRUE(std::isnan(log2_sum({1, infinity, 2, 3, 4}, width)));
  }
}

}  // namespace
