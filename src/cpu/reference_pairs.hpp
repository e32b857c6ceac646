// What device "reference" computes of a single pair of a query row and a key, in fp64 and straight
// from the definition; it shares no code with the other devices.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/half.hpp"
#include "core/problem.hpp"

namespace ingot::reference {

inline constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
T read(const void* data, std::int64_t index) {
  T value;
  std::memcpy(&value,
              static_cast<const std::byte*>(data) + index * static_cast<std::int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

template <class T>
void write(void* data, std::int64_t index, T value) {
  std::memcpy(static_cast<std::byte*>(data) + index * static_cast<std::int64_t>(sizeof(T)), &value,
              sizeof(T));
}

inline double load(const void* data, Dtype dtype, std::int64_t index) {
  switch (dtype) {
    case Dtype::f32:
      return read<float>(data, index);
    case Dtype::f16:
      return from_f16(read<std::uint16_t>(data, index));
    case Dtype::bf16:
      return from_bf16(read<std::uint16_t>(data, index));
    case Dtype::f64:
      return read<double>(data, index);
    case Dtype::u8:
      return read<std::uint8_t>(data, index);
    case Dtype::i32:
      return read<std::int32_t>(data, index);
  }
  return 0;
}

inline void store(void* data, Dtype dtype, std::int64_t index, double value) {
  switch (dtype) {
    case Dtype::f32:
      return write(data, index, static_cast<float>(value));
    case Dtype::f16:
      return write(data, index, to_f16(value));
    case Dtype::bf16:
      return write(data, index, to_bf16(value));
    case Dtype::f64:
      return write(data, index, value);
    case Dtype::u8:
    case Dtype::i32:
      return;  // never an output
  }
}

/// Which weights dropout takes: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
/// 1, 2, 3", SC 2011) of the place. docs/numerics.md has the whole rule.
class Dropout {
 public:
  Dropout(const Problem& problem, const PartInputs& inputs);

  /// The factor of a weight; 1 without dropout. `head` counts through the batch.
  double keep(std::int64_t head, std::int64_t row, std::int64_t col) const;

 private:
  const std::uint32_t threshold_;  // of numbers of 16 bits; those below it are taken
  const std::uint64_t seed_, offset_;
};

/// What the problem and the parts of a call say of the pairs of one head.
class Pairs {
 public:
  Pairs(const Problem& problem, const PartInputs& inputs, std::int64_t b, std::int64_t h)
      : p_(problem), in_(inputs), b_(b), h_(h), dropout_(problem, inputs) {}

  bool visible(std::int64_t row, std::int64_t col) const {
    if (p_.parts.mask && at(in_.mask, Dtype::u8, row, col) == 0) return false;
    if (p_.parts.prefix && static_cast<double>(col) < at(in_.prefix_len, Dtype::i32, 0, 0))
      return true;
    if (p_.causal != Causal::none && col > position(row)) return false;
    if (p_.window_left >= 0 && position(row) - col > p_.window_left) return false;
    return p_.window_right < 0 || col - position(row) <= p_.window_right;
  }

  double score(double qk, std::int64_t row, std::int64_t col) const {
    const double scale = p_.scale, cap = p_.softcap;
    double score = cap > 0 ? cap * std::tanh(scale * qk / cap) : scale * qk;
    if (p_.parts.alibi) {
      score -= at(in_.alibi_slopes, Dtype::f32, 0, 0) *
               static_cast<double>(std::abs(col - position(row)));
    }
    if (p_.parts.bias) score += at(in_.bias, p_.parts.bias_dtype, row, col, p_.parts.bias_shape);
    return score;
  }

  /// d score / d<q, k>
  double score_derivative(double qk) const {
    const double scale = p_.scale, cap = p_.softcap;
    if (!(cap > 0)) return scale;
    const double t = std::tanh(scale * qk / cap);
    return scale * (1 - t * t);
  }

  /// The logit without a value; -inf: there is none.
  double sink() const {
    return p_.parts.sinks ? at(in_.sinks, p_.parts.sinks_dtype, 0, 0) : -infinity;
  }

  double keep(std::int64_t row, std::int64_t col) const {
    return dropout_.keep(b_ * p_.num_heads + h_, row, col);
  }

 private:
  std::int64_t position(std::int64_t row) const {
    return p_.causal == Causal::top_left ? row : row + p_.seqlen_k - p_.seqlen_q;
  }

  /// `shape` has an extent of 1 in the dimensions that the tensor lacks.
  double at(const ConstTensor& t, Dtype dtype, std::int64_t row, std::int64_t col,
            const Shape& shape = {0, 0, 0, 0}) const {
    const std::int64_t index[] = {b_, h_, row, col};
    std::int64_t place = 0;
    for (std::size_t i = 0; i < 4; ++i) place += shape[i] == 1 ? 0 : index[i] * t.stride[i];
    return load(t.data, dtype, place);
  }

  const Problem& p_;
  const PartInputs& in_;
  const std::int64_t b_, h_;
  const Dropout dropout_;
};

}  // namespace ingot::reference
