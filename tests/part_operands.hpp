// Tensors of the parts that a row of cases.hpp turns on: where they lie and what they hold. Public
// API only.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "operand.hpp"

namespace ingot::conformance {

/// A byte for every pair, in memory of exactly the bytes that it reaches.
struct MaskOperand {
  std::shared_ptr<std::vector<std::uint8_t>> bytes;  // null: no mask
  View view;

  std::uint8_t& at(Index b, Index h, Index row, Index col) const {
    return (*bytes)[static_cast<std::size_t>(view.element(b, h, row, col))];
  }
  ingot_tensor tensor() const {
    if (bytes == nullptr) return {};
    const Shape& s = view.stride;
    return {bytes->data() + view.origin, {s[0], s[1], s[2], s[3]}};
  }
};

/// What the parts of one call read and write. Slopes are [batch, heads, 1, 1], sinks [1, heads, 1,
/// 1]. Bias, dbias and mask follow the layout of the row.
struct PartOperands {
  Operand slopes, bias, sinks, dbias, dsinks;  // of a part that is off: without a buffer
  MaskOperand mask;
  std::shared_ptr<std::vector<std::int32_t>> prefix_len;  // null: no prefix
  std::uint64_t seed = 0, offset = 0;

  PartOperands(const ingot_problem& p, Layout layout, const PartChoice& choice) {
    if (p.alibi != 0) {
      const View v{{p.batch, p.num_heads, 1, 1},
                   {choice.alibi == Slopes::of_heads ? 0 : 3 * p.num_heads, 3, 0, 0},
                   1};
      slopes = {"alibi_slopes", std::make_shared<Buffer>(INGOT_F32, span_of(v)), v};
    }
    if (p.bias_dtype != INGOT_DTYPE_DEFAULT) make_bias(p, layout, choice);
    if (p.mask != 0) make_mask(p, layout, choice.mask);
    if (p.sinks_dtype != INGOT_DTYPE_DEFAULT) {
      sinks = strided_heads("sinks", p.sinks_dtype, p.num_heads, 2);
      dsinks = strided_heads("dsinks", p.dsinks_dtype, p.num_heads, 3);
    }
    const auto batch = static_cast<std::size_t>(p.batch);
    if (p.prefix != 0) prefix_len = std::make_shared<std::vector<std::int32_t>>(batch);
    const auto dim = static_cast<std::uint64_t>(p.head_dim);
    if (p.dropout > 0) seed = dim * 0x9E3779B97F4A7C15ULL, offset = dim * 0xBF58476D1CE4E5B9ULL;
  }

  ingot_part_tensors tensors() const {
    ingot_part_tensors t{};
    t.alibi_slopes = slopes.tensor(), t.bias = bias.tensor(), t.sinks = sinks.tensor();
    t.mask = mask.tensor();
    if (prefix_len != nullptr) t.prefix_len = {prefix_len->data(), {1, 0, 0, 0}};
    t.dropout_seed = seed, t.dropout_offset = offset;
    return t;
  }

 private:
  static Operand strided_heads(const char* name, ingot_dtype dtype, Index heads, Index stride) {
    const View v{{1, heads, 1, 1}, {0, stride, 0, 0}, 0};
    return {name, std::make_shared<Buffer>(dtype, span_of(v)), v};
  }

  void make_bias(const ingot_problem& p, Layout layout, const PartChoice& choice) {
    const Shape shape{p.bias_shape[0], p.bias_shape[1], p.bias_shape[2], p.bias_shape[3]};
    View v = make_view(shape, layout, false);
    for (std::size_t i = 0; i < 4; ++i) {
      if (choice.bias_dims[i] == '0') v.stride[i] = 0;
    }
    bias = {"bias", std::make_shared<Buffer>(p.bias_dtype, span_of(v)), v};
    dbias = make_operand("dbias", p.dbias_dtype, shape, layout, true);
  }

  void make_mask(const ingot_problem& p, Layout layout, Mask kind) {
    View v = make_view(shape_pairs(p), layout, false);
    if (kind == Mask::of_heads) v.stride[0] = 0;
    if (kind == Mask::of_batches) v.stride[1] = 0;
    if (kind == Mask::padding) v = {shape_pairs(p), {p.seqlen_k, 0, 0, 1}, 0};
    mask.view = v;
    const auto count = static_cast<std::size_t>(span_of(v));
    mask.bytes = std::make_shared<std::vector<std::uint8_t>>(count);
  }
};

inline void fill_mask(const MaskOperand& mask, Mask kind, Random& random) {
  for (std::uint8_t& byte : *mask.bytes) byte = static_cast<std::uint8_t>(random.bits());  // gaps
  const Shape n = mask.view.shape;
  const auto half = [&] { return random.bits() % 2 == 0; };
  std::vector<std::uint64_t> square(static_cast<std::size_t>((n[2] / 64 + 1) * (n[3] / 64 + 1)));
  for (std::uint64_t& kind_of_square : square) kind_of_square = random.bits() % 3;
  mask.view.for_each([&](Index b, Index h, Index row, Index col) {
    bool sees = half();
    if (kind == Mask::everything) sees = false;
    if (kind == Mask::padding) sees = col < n[3] - (b * 7 + 3) % (n[3] + 1);
    if (kind == Mask::holes && (row % 5 == 2 || col == n[3] / 2 || col == n[3] / 3)) sees = false;
    if (kind == Mask::blocks) {
      const Index place = (row / 64 * (n[3] / 64 + 1) + col / 64 + b + h) % std::ssize(square);
      const std::uint64_t all = square[static_cast<std::size_t>(place)];
      sees = all == 1 || (all == 2 && sees);
    }
    // Any byte but 0 is a yes.
    const auto yes = static_cast<std::uint8_t>(1U << random.bits() % 8);
    mask.at(b, h, row, col) = sees ? yes : std::uint8_t{0};
  });
}

inline void put(const Operand& t, Index b, Index h, Index s, Index d, double x) {
  write_element(t.buffer->at(t.view.element(b, h, s, d)), t.buffer->dtype(), x);
}

inline void fill_bias(const Operand& bias, bool holes, Random& random) {
  const Shape& n = bias.view.shape;
  bias.view.for_each([&](Index b, Index h, Index row, Index col) {
    const bool is_hole = random.bits() % 4 == 0 || (n[2] > 3 && row == 3) || col == n[3] / 2;
    const double x = random.normal();
    put(bias, b, h, row, col, holes && is_hole ? -std::numeric_limits<double>::infinity() : x);
  });
}

inline void fill_parts(const PartOperands& t, const ingot_problem& p, const PartChoice& choice,
                       Random& random) {
  if (t.slopes.buffer != nullptr) {
    t.slopes.view.for_each([&](Index b, Index h, Index s, Index d) {
      // As usual, from 2^-1 down; the second is 0, the last of four grows with the distance.
      const double slope = std::ldexp(1.0, -1 - static_cast<int>(h % 8)) * (h == 1 ? 0 : 1);
      put(t.slopes, b, h, s, d, h == 3 ? -0.01 : slope * (1 + 0.1 * static_cast<double>(b)));
    });
  }
  if (t.bias.buffer != nullptr) fill_bias(t.bias, choice.bias_holes, random);
  if (p.mask != 0) fill_mask(t.mask, choice.mask, random);
  if (t.sinks.buffer != nullptr) {
    t.sinks.view.for_each([&](Index b, Index h, Index s, Index d) {
      const bool absent = choice.sink_values == Sinks::some_absent && h % 2 == 0;
      const double x = 1 + random.normal();
      put(t.sinks, b, h, s, d, absent ? -std::numeric_limits<double>::infinity() : x);
    });
  }
  if (t.prefix_len == nullptr) return;
  for (std::size_t b = 0; b < t.prefix_len->size(); ++b) {
    const Index lengths[] = {p.seqlen_k / 2 + 1, -3, p.seqlen_k + 5, 0};
    (*t.prefix_len)[b] = static_cast<std::int32_t>(lengths[b % 4]);
  }
}

}  // namespace ingot::conformance
