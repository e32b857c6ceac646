// What the parts of a row say of a single pair, for plain attention: a second definition, which has
// nothing from device "reference" but the rules of ingot.h.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "part_operands.hpp"

namespace ingot::conformance {

/// Philox4x32-10: four random words of a counter and a key.
inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                               std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = counter[0] * 0xD2511F53ULL, odd = counter[2] * 0xCD9E8D57ULL;
    counter = {static_cast<std::uint32_t>(odd >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(odd),
               static_cast<std::uint32_t>(even >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(even)};
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  return counter;
}

/// The 16 bits that decide whether dropout takes a weight: below the probability times 2^16. `head`
/// counts through the batch. In a square of 16 x 16 pairs a counter serves the pairs that are 8
/// rows or 8 cols apart, and both of two neighbouring cols.
inline std::uint32_t dropout_number(std::uint64_t seed, std::uint64_t offset, Index head, Index row,
                                    Index col) {
  const Index square_row = row / 16, square_col = col / 16;
  const Index r = row - 16 * square_row, c = col - 16 * square_col;
  const bool lower = r >= 8, right = c >= 8;
  const std::array<std::uint32_t, 4> counter{
      static_cast<std::uint32_t>(4 * square_col + (right ? c - 8 : c) / 2),
      static_cast<std::uint32_t>(8 * square_row + (lower ? r - 8 : r)),
      static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(offset)};
  const std::array<std::uint32_t, 2> key{
      static_cast<std::uint32_t>(seed),
      static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(offset >> 32)};
  const std::array<std::uint32_t, 4> words = philox4x32(counter, key);
  const std::uint32_t word = words[(lower ? 2U : 0U) + (right ? 1U : 0U)];
  return c % 2 == 1 ? word >> 16 : word & 0xFFFFU;
}

/// One pair of a query row and a key.
struct Pair {
  Index b, h, row, col;
};

class PlainParts {
 public:
  PlainParts(const ingot_problem& problem, const PartOperands& tensors)
      : p_(problem),
        t_(tensors),
        slopes_(tensors.slopes.dense()),
        bias_(tensors.bias.dense()),
        sinks_(tensors.sinks.dense()) {}

  bool visible(const Pair& at) const {
    if (t_.mask.bytes != nullptr && t_.mask.at(at.b, at.h, at.row, at.col) == 0) return false;
    const bool is_prefix =
        t_.prefix_len != nullptr && at.col < (*t_.prefix_len)[static_cast<std::size_t>(at.b)];
    const Index ahead = at.col - position(at.row);
    const bool past = p_.causal == INGOT_CAUSAL_NONE || ahead <= 0;
    return is_prefix || (past && (p_.window_left < 0 || -ahead <= p_.window_left) &&
                         (p_.window_right < 0 || ahead <= p_.window_right));
  }

  /// What is added to the score, after the softcap: first ALiBi, then the bias.
  std::array<double, 2> terms(const Pair& at) const {
    std::array<double, 2> t{};
    if (!slopes_.data.empty()) {
      const auto distance = static_cast<double>(at.col - position(at.row));
      t[0] = -*slopes_.row(at.b, at.h, 0) * std::fabs(distance);
    }
    if (!bias_.data.empty()) t[1] = bias_.data[bias_index(at)];
    return t;
  }
  bool has_terms() const { return !slopes_.data.empty() || !bias_.data.empty(); }

  bool has_bias() const { return !bias_.data.empty(); }
  /// The element of bias and dbias that a pair has, in the order of their shape.
  std::size_t bias_index(const Pair& at) const {
    const auto within = [&](std::size_t i, Index place) { return bias_.shape[i] == 1 ? 0 : place; };
    return static_cast<std::size_t>(
        ((within(0, at.b) * bias_.shape[1] + within(1, at.h)) * bias_.shape[2] +
         within(2, at.row)) *
            bias_.shape[3] +
        within(3, at.col));
  }

  /// -inf: there is none.
  double sink(Index h) const {
    return sinks_.data.empty() ? -std::numeric_limits<double>::infinity() : *sinks_.row(0, h, 0);
  }

  bool has_dropout() const { return p_.dropout > 0; }
  /// What dropout multiplies a weight by.
  double keep(const Pair& at) const {
    if (!has_dropout()) return 1;
    const double taken = std::round(static_cast<double>(p_.dropout) * 0x1p16);
    const Index head = at.b * p_.num_heads + at.h;
    return dropout_number(t_.seed, t_.offset, head, at.row, at.col) < taken
               ? 0
               : 1 / (1 - taken * 0x1p-16);
  }

 private:
  /// Where a row is among the keys.
  Index position(Index row) const {
    return p_.causal == INGOT_CAUSAL_TOP_LEFT ? row : row + p_.seqlen_k - p_.seqlen_q;
  }

  const ingot_problem& p_;
  const PartOperands& t_;
  Dense slopes_, bias_, sinks_;
};

}  // namespace ingot::conformance
