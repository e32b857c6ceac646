// Plain (materialised) attention in the dtype of the inputs: what the error of a device is measured
// by. It writes out S and P, rounds both to the inputs' dtype as separate operations on 16-bit
// tensors do, and accumulates in float. The range of f16 is not modelled, so that scores beyond
// 65504 still give a measure.
//
// Beside every result stands its floor: what a single rounding in f32 of every score, weight, delta
// and sum, and one of the result to its own dtype, can change at most to first order. It covers
// results that happen to come out exact. First order ends if scores are large: a weight is never
// off by more than 1, and a score that no rounding can bring near another one (see decided()) adds
// nothing.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "plain_parts.hpp"

namespace ingot::conformance {

/// A result of plain attention and its floor. `spill` is NaN where a masked pair multiplies its
/// weight 0 by an Inf or NaN in a product of whole matrices, and 0 elsewhere; the value leaves
/// masked pairs out.
struct Measure {
  Dense value, floor, spill;
  Measure() = default;
  explicit Measure(const Shape& s) : value(s), floor(s), spill(s) {}
};

struct PlainResult {
  Measure o, lse, dq, dk, dv, dbias, dsinks;
};

/// Which dtypes the plain computation rounds to.
struct PlainDtypes {
  ingot_dtype inner;  // of S, P, dP, dS
  ingot_dtype o, dq, dk, dv, dbias, dsinks;
  double roundoff = 0x1p-24;  // of the products that make scores and results, in the floor
};

class Plain {
 public:
  Plain(const ingot_problem& problem, const PlainDtypes& dtypes, const Dense& q, const Dense& k,
        const Dense& v, const Dense& dout, const PlainParts& parts)
      : p_(problem),
        t_(dtypes),
        digits_(format_of(dtypes.inner).digits),
        u_(dtypes.roundoff),
        q_(q),
        k_(k),
        v_(v),
        dout_(dout),
        parts_(parts) {
    scale_ = p_.scale != 0 ? p_.scale
                           : static_cast<float>(1 / std::sqrt(static_cast<double>(p_.head_dim)));
    const auto cols = static_cast<std::size_t>(p_.seqlen_k);
    for (std::vector<double>* x : {&weight_, &slope_, &weight_error_, &dp_, &dp_error_, &keep_})
      x->resize(cols);
    seen_.resize(cols);
    for (Index row = 0; row < rows_of(q_); ++row) grain_q_.push_back(grain(q_, row));
    for (Index row = 0; row < rows_of(k_); ++row) grain_k_.push_back(grain(k_, row));
  }

  PlainResult run() {
    PlainResult r{Measure(dout_.shape),
                  Measure({p_.batch, p_.num_heads, p_.seqlen_q, 1}),
                  Measure(q_.shape),
                  Measure(k_.shape),
                  Measure(v_.shape),
                  Measure({p_.bias_shape[0], p_.bias_shape[1], p_.bias_shape[2], p_.bias_shape[3]}),
                  Measure({1, p_.num_heads, 1, 1})};
    for (Index b = 0; b < p_.batch; ++b) {
      for (Index h = 0; h < p_.num_heads; ++h) {
        for (Index row = 0; row < p_.seqlen_q; ++row) add_row(b, h, row, r);
      }
    }
    finish(r.o, t_.o), finish(r.lse, INGOT_F32, 2);  // the reference's lse is rounded to f32, too
    finish(r.dq, t_.dq), finish(r.dk, t_.dk), finish(r.dv, t_.dv);
    if (parts_.has_bias()) finish(r.dbias, t_.dbias, 2);  // as with lse
    finish(r.dsinks, t_.dsinks);
    return r;
  }

 private:
  /// What the sink of a row has of its weight, and by how much that may be off.
  struct Sink {
    double weight, error;
  };

  static constexpr double infinity_ = std::numeric_limits<double>::infinity();

  double inner(double x) const {
    return round_digits(static_cast<double>(static_cast<float>(x)), digits_);
  }

  static float dot(const double* x, const double* y, Index n) {
    float sum = 0;
    for (Index i = 0; i < n; ++i) sum += static_cast<float>(x[i]) * static_cast<float>(y[i]);
    return sum;
  }
  static double dot_abs(const double* x, const double* y, Index n) {
    double sum = 0;
    for (Index i = 0; i < n; ++i) sum += std::fabs(x[i] * y[i]);
    return sum;
  }
  /// a * b where a zero weight takes no part, whatever it multiplies.
  static double part(double a, double b) { return a == 0 ? 0 : a * b; }
  /// value += a * x in float, floor += error * |x|; of a masked pair, spill += a * x.
  static void add_scaled(Measure& m, Index b, Index h, Index s, double a, double error,
                         const double* x, Index n, bool seen) {
    double* value = (seen ? m.value : m.spill).row(b, h, s);
    double* floor = m.floor.row(b, h, s);
    for (Index i = 0; i < n; ++i) {
      value[i] = static_cast<float>(value[i]) + static_cast<float>(a) * static_cast<float>(x[i]);
      if (seen) floor[i] += part(error, std::fabs(x[i]));
    }
  }
  static void finish(Measure& m, ingot_dtype dtype, int roundings = 1) {
    for (std::size_t i = 0; i < m.value.data.size(); ++i) {
      m.value.data[i] = round_to(m.value.data[i], dtype);
      m.floor.data[i] += roundings * roundoff(dtype) * std::fabs(m.value.data[i]) + smallest(dtype);
    }
  }

  static Index row_index(const Dense& x, Index b, Index h, Index s) {
    return (b * x.shape[1] + h) * x.shape[2] + s;
  }
  static Index rows_of(const Dense& x) { return x.shape[0] * x.shape[1] * x.shape[2]; }

  /// The largest power of two that divides every number of a row; infinity for a row of zeros.
  static double grain(const Dense& x, Index row) {
    double lowest = infinity_;
    for (Index i = 0; i < x.shape[3]; ++i) {
      int exponent = 0;
      const double fraction = std::frexp(x.data[row * x.shape[3] + i], &exponent);
      if (fraction == 0) continue;
      if (!std::isfinite(fraction)) return 0;
      const auto digits = static_cast<std::int64_t>(std::ldexp(std::fabs(fraction), 53));
      lowest = std::min(
          lowest,
          std::ldexp(1.0, exponent - 53 + std::countr_zero(static_cast<std::uint64_t>(digits))));
    }
    return lowest;
  }

  /// Whether f32 gives this score as well as fp64 does: <q, k> and its partial sums are multiples
  /// of one power of two and few of them, so they are exact in every order, and other such scores
  /// are either equal or so far away that one of the two weights is 0.
  bool decided(double score, double tanh, double dot_abs, double grain) const {
    constexpr double most_grains = 0x1p12, large = 0x1p16, unsaturated = 0.99;
    return dot_abs <= most_grains * grain && std::fabs(score) >= large &&
           std::fabs(tanh) < unsaturated;
  }

  /// A score with ALiBi and bias, each added by an operation of its own; `error` grows with them.
  double with_terms(double score, const Pair& at, double& error) const {
    for (const double term : parts_.terms(at)) {
      if (term == 0) continue;
      score = inner(score + term);
      error += u_ * (std::fabs(score) + std::fabs(term));
    }
    if (score == -infinity_) error = 0;  // whatever is added to it
    return score;
  }

  /// Scores of one row into weight_, their derivatives into slope_, their errors into
  /// weight_error_; the maximum.
  double scores(const double* q, Index b, Index h, Index h_kv, Index row) {
    double largest = parts_.sink(h);
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_[col] = -infinity_, slope_[col] = weight_error_[col] = 0;
      const Pair at{b, h, row, col};
      seen_[col] = parts_.visible(at), keep_[col] = parts_.keep(at);
      if (!seen_[col]) continue;
      double s = inner(scale_ * inner(dot(q, k_.row(b, h_kv, col), p_.head_dim)));
      slope_[col] = scale_;
      float t = 0;
      double score_error = 0;
      if (p_.softcap > 0) {
        t = std::tanh(static_cast<float>(s) / p_.softcap);
        s = inner(p_.softcap * t);
        slope_[col] = inner(scale_ * (1.0F - t * t));
        score_error = u_ * std::fabs(s);
      }
      const double sum_abs = dot_abs(q, k_.row(b, h_kv, col), p_.head_dim);
      score_error += part(std::fabs(slope_[col]), u_ * sum_abs);
      const double common =
          grain_q_[row_index(q_, b, h, row)] * grain_k_[row_index(k_, b, h_kv, col)];
      const bool is_decided = !parts_.has_terms() && decided(s, t, sum_abs, common);
      s = with_terms(s, at, score_error);
      weight_error_[col] = u_ + (is_decided ? 0 : score_error);
      weight_[col] = s;
      if (s > largest || std::isnan(s)) largest = s;
    }
    return largest;
  }

  void add_row(Index b, Index h, Index row, PlainResult& r) {
    const Index h_kv = h / (p_.num_heads / p_.num_heads_kv);
    const double* q = q_.row(b, h, row);
    const double largest = scores(q, b, h, h_kv, row);
    *r.lse.value.row(b, h, row) = -infinity_;
    if (largest == -infinity_) return;  // a row without weight
    const double sink = parts_.sink(h);
    Sink s{std::exp(static_cast<float>(sink - largest)), 0};
    auto sum = static_cast<float>(s.weight);
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_[col] = std::exp(static_cast<float>(weight_[col] - largest));
      sum += static_cast<float>(weight_[col]);
    }
    s.weight = inner(static_cast<float>(s.weight) / sum);
    double mean_error = part(s.weight, u_ * (1 + std::fabs(sink)));
    s.error = mean_error;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_[col] = inner(static_cast<float>(weight_[col]) / sum);
      mean_error += part(weight_[col], weight_error_[col]);
    }
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_error_[col] = std::min(part(weight_[col], weight_error_[col] + mean_error), 1.0);
    }
    s.error = std::min(s.error + s.weight * mean_error, 1.0);
    *r.lse.value.row(b, h, row) = static_cast<float>(largest) + std::log(sum);
    *r.lse.floor.row(b, h, row) = mean_error;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      add_scaled(r.o, b, h, row, kept(col), kept_error(col), v_.row(b, h_kv, col), p_.head_dim_v,
                 seen_[col]);
    }
    add_gradients(b, h, h_kv, row, s, r);
  }

  /// A weight as dropout leaves it, which is one more operation, and its error.
  double kept(Index col) const {
    return parts_.has_dropout() ? inner(weight_[col] * keep_[col]) : weight_[col];
  }
  double kept_error(Index col) const {
    if (!parts_.has_dropout()) return weight_error_[col];
    return part(keep_[col], weight_error_[col] + u_ * weight_[col]);
  }

  /// value[i] += x in float; of a masked pair, spill.
  void add(Measure& m, std::size_t i, double x, double error, bool seen) const {
    double& sum = (seen ? m.value : m.spill).data[i];
    sum = static_cast<float>(sum) + static_cast<float>(x);
    if (seen) m.floor.data[i] += error + u_ * std::fabs(x);
  }

  void add_to_bias(const Pair& at, double centred, double delta_error, Measure& dbias) const {
    const double error =
        part(weight_error_[at.col], std::fabs(centred)) +
        part(weight_[at.col], dp_error_[at.col] + delta_error + u_ * std::fabs(centred));
    add(dbias, parts_.bias_index(at), inner(weight_[at.col] * centred), error, seen_[at.col] != 0);
  }

  void add_gradients(Index b, Index h, Index h_kv, Index row, const Sink& sink, PlainResult& r) {
    const double* q = q_.row(b, h, row);
    const double* dout = dout_.row(b, h, row);
    float delta = 0, delta_spill = 0;
    double product_error = 0;  // of delta, if it is made of weights
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      const double* v = v_.row(b, h_kv, col);
      dp_[col] = inner(keep_[col] * inner(dot(dout, v, p_.head_dim_v)));
      dp_error_[col] = keep_[col] * u_ * dot_abs(dout, v, p_.head_dim_v);
      product_error += part(weight_[col], dp_error_[col]);
      product_error += part(weight_error_[col], std::fabs(dp_[col]));
      (seen_[col] ? delta : delta_spill) +=
          static_cast<float>(weight_[col]) * static_cast<float>(dp_[col]);
    }
    // A device takes delta from dout and the o it was given, which was rounded to its dtype.
    const double delta_error =
        (u_ + roundoff(t_.o)) * dot_abs(dout, r.o.value.row(b, h, row), p_.head_dim_v);
    const double sink_error =
        part(sink.error, std::fabs(delta)) + part(sink.weight, delta_error + product_error);
    add(r.dsinks, static_cast<std::size_t>(h), -part(sink.weight, delta), sink_error, true);
    add(r.dsinks, static_cast<std::size_t>(h), delta_spill, 0, false);
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      const double centred = static_cast<float>(dp_[col]) - delta;
      const double ds = inner(weight_[col] * centred * slope_[col]);
      const double slope = std::fabs(slope_[col]);
      const double error = part(weight_error_[col], std::fabs(centred) * slope) +
                           part(weight_[col], slope * (dp_error_[col] + delta_error) +
                                                  u_ * std::fabs(centred * scale_));
      if (parts_.has_bias()) add_to_bias({b, h, row, col}, centred, delta_error, r.dbias);
      add_scaled(r.dv, b, h_kv, col, kept(col), kept_error(col), dout, p_.head_dim_v, seen_[col]);
      add_scaled(r.dq, b, h, row, ds, error, k_.row(b, h_kv, col), p_.head_dim, seen_[col]);
      add_scaled(r.dk, b, h_kv, col, ds, error, q, p_.head_dim, seen_[col]);
      if (!std::isnan(delta_spill)) continue;
      add_scaled(r.dq, b, h, row, delta_spill, 0, q, p_.head_dim, false);
      add_scaled(r.dk, b, h_kv, col, delta_spill, 0, q, p_.head_dim, false);
    }
  }

  const ingot_problem& p_;
  PlainDtypes t_;
  int digits_;
  double u_;
  const Dense &q_, &k_, &v_, &dout_;
  const PlainParts& parts_;
  float scale_ = 0;
  std::vector<char> seen_;
  std::vector<double> grain_q_, grain_k_;  // of every row
  std::vector<double> weight_, slope_, weight_error_, dp_, dp_error_,
      keep_;  // of one row, a number per col
};

}  // namespace ingot::conformance
