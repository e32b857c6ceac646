#include <array>

#include "cpu/reference_pairs.hpp"

namespace ingot::reference {
namespace {

using Words = std::array<std::uint32_t, 4>;

std::uint32_t high_half(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
std::uint32_t low_half(std::uint64_t x) { return static_cast<std::uint32_t>(x); }

Words philox(Words counter, std::uint64_t key) {
  std::uint32_t key_0 = low_half(key), key_1 = high_half(key);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {high_half(b) ^ counter[1] ^ key_0, low_half(b), high_half(a) ^ counter[3] ^ key_1,
               low_half(a)};
    key_0 += 0x9E3779B9;
    key_1 += 0xBB67AE85;
  }
  return counter;
}

}  // namespace

Dropout::Dropout(const Problem& problem, const PartInputs& inputs)
    : threshold_(static_cast<std::uint32_t>(std::lround(problem.parts.dropout * 65536.0F))),
      seed_(inputs.dropout_seed),
      offset_(inputs.dropout_offset) {}

double Dropout::keep(std::int64_t head, std::int64_t row, std::int64_t col) const {
  if (threshold_ == 0) return 1;
  // Eight places share four words: rows r and r + 8, cols c, c + 1, c + 8 and c + 9 of a square of
  // 16 x 16.
  const auto rows = static_cast<std::uint32_t>(row / 16 * 8 + row % 8);
  const auto cols = static_cast<std::uint32_t>(col / 16 * 4 + col % 8 / 2);
  const Words words = philox({cols, rows, static_cast<std::uint32_t>(head), low_half(offset_)},
                             seed_ ^ std::uint64_t{high_half(offset_)} << 32);
  const auto word = static_cast<std::size_t>(row / 8 % 2 * 2 + col / 8 % 2);
  const std::uint32_t number = col % 2 == 0 ? words[word] & 0xFFFF : words[word] >> 16;
  return number < threshold_ ? 0.0 : 65536.0 / (65536.0 - threshold_);
}

}  // namespace ingot::reference
