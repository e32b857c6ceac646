// Plain (materialised) attention in the dtype of the inputs: what the error of a device is measured
// by. It writes out S and P, rounds both to the inputs' dtype as separate operations on 16-bit
// tensors do, and accumulates in float. The range of f16 is not modelled, so that scores beyond
// 65504 still give a measure.
//
// Beside every result stands its floor: what a single rounding in f32 of every score, weight, delta
// and sum, and one of the result to its own dtype, can change at most to first order. It covers
// results that happen to come out exact.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "tensor.hpp"

namespace ingot::conformance {

/// Numbers of a logical tensor, packed [batch, head, row, col].
struct Dense {
  Shape shape{};
  std::vector<double> data;

  Dense() = default;
  explicit Dense(const Shape& s)
      : shape(s), data(static_cast<std::size_t>(s[0] * s[1] * s[2] * s[3])) {}
  double* row(Index b, Index h, Index s) {
    return data.data() + ((b * shape[1] + h) * shape[2] + s) * shape[3];
  }
  const double* row(Index b, Index h, Index s) const {
    return data.data() + ((b * shape[1] + h) * shape[2] + s) * shape[3];
  }
};

inline Dense read_dense(const Buffer& buffer, const View& v) {
  Dense dense(v.shape);
  std::size_t i = 0;
  v.for_each([&](Index b, Index h, Index s, Index d) {
    dense.data[i++] = read_element(buffer.at(v.element(b, h, s, d)), buffer.dtype());
  });
  return dense;
}

/// A result of plain attention and its floor. `spill` is NaN where a masked pair multiplies its
/// weight 0 by an Inf or NaN in a product of whole matrices, and 0 elsewhere; the value leaves
/// masked pairs out.
struct Measure {
  Dense value, floor, spill;
  Measure() = default;
  explicit Measure(const Shape& s) : value(s), floor(s), spill(s) {}
};

struct PlainResult {
  Measure o, lse, dq, dk, dv;
};

/// Which dtypes the plain computation rounds to.
struct PlainDtypes {
  ingot_dtype inner;  // of S, P, dP, dS
  ingot_dtype o, dq, dk, dv;
  double roundoff = 0x1p-24;  // of the products that make scores and results, in the floor
};

class Plain {
 public:
  Plain(const ingot_problem& problem, const PlainDtypes& dtypes, const Dense& q, const Dense& k,
        const Dense& v, const Dense& dout)
      : p_(problem),
        t_(dtypes),
        digits_(format_of(dtypes.inner).digits),
        u_(dtypes.roundoff),
        q_(q),
        k_(k),
        v_(v),
        dout_(dout) {
    scale_ = p_.scale != 0 ? p_.scale
                           : static_cast<float>(1 / std::sqrt(static_cast<double>(p_.head_dim)));
    const auto cols = static_cast<std::size_t>(p_.seqlen_k);
    for (std::vector<double>* x : {&weight_, &slope_, &weight_error_, &dp_, &dp_error_})
      x->resize(cols);
    seen_.resize(cols);
  }

  PlainResult run() {
    PlainResult r{Measure(dout_.shape), Measure({p_.batch, p_.num_heads, p_.seqlen_q, 1}),
                  Measure(q_.shape), Measure(k_.shape), Measure(v_.shape)};
    for (Index b = 0; b < p_.batch; ++b) {
      for (Index h = 0; h < p_.num_heads; ++h) {
        for (Index row = 0; row < p_.seqlen_q; ++row) add_row(b, h, row, r);
      }
    }
    finish(r.o, t_.o), finish(r.lse, INGOT_F32, 2);  // the reference's lse is rounded to f32, too
    finish(r.dq, t_.dq), finish(r.dk, t_.dk), finish(r.dv, t_.dv);
    return r;
  }

 private:
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

  bool visible(Index row, Index col) const {
    const Index p = p_.causal == INGOT_CAUSAL_TOP_LEFT ? row : row + p_.seqlen_k - p_.seqlen_q;
    const bool past = p_.causal == INGOT_CAUSAL_NONE || col <= p;
    return past && (p_.window_left < 0 || p - col <= p_.window_left) &&
           (p_.window_right < 0 || col - p <= p_.window_right);
  }

  /// Scores of one row into weight_, their derivatives into slope_, their errors into
  /// weight_error_; the maximum.
  double scores(const double* q, Index b, Index h_kv, Index row, bool& sees_any) {
    double largest = -infinity_;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_[col] = -infinity_, slope_[col] = weight_error_[col] = 0;
      seen_[col] = visible(row, col);
      if (!seen_[col]) continue;
      sees_any = true;
      double s = inner(scale_ * inner(dot(q, k_.row(b, h_kv, col), p_.head_dim)));
      slope_[col] = scale_;
      weight_error_[col] = u_;
      if (p_.softcap > 0) {
        const float t = std::tanh(static_cast<float>(s) / p_.softcap);
        s = inner(p_.softcap * t);
        slope_[col] = inner(scale_ * (1.0F - t * t));
        weight_error_[col] += u_ * std::fabs(s);
      }
      weight_error_[col] +=
          part(std::fabs(slope_[col]), u_ * dot_abs(q, k_.row(b, h_kv, col), p_.head_dim));
      weight_[col] = s;
      if (s > largest || std::isnan(s)) largest = s;
    }
    return largest;
  }

  void add_row(Index b, Index h, Index row, PlainResult& r) {
    const Index h_kv = h / (p_.num_heads / p_.num_heads_kv);
    const double* q = q_.row(b, h, row);
    bool sees_any = false;
    const double largest = scores(q, b, h_kv, row, sees_any);
    *r.lse.value.row(b, h, row) = -infinity_;
    if (!sees_any) return;
    float sum = 0;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_[col] = std::exp(static_cast<float>(weight_[col] - largest));
      sum += static_cast<float>(weight_[col]);
    }
    double mean_error = 0;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_[col] = inner(static_cast<float>(weight_[col]) / sum);
      mean_error += part(weight_[col], weight_error_[col]);
    }
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      weight_error_[col] = part(weight_[col], weight_error_[col] + mean_error);
    }
    *r.lse.value.row(b, h, row) = static_cast<float>(largest) + std::log(sum);
    *r.lse.floor.row(b, h, row) = mean_error;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      add_scaled(r.o, b, h, row, weight_[col], weight_error_[col], v_.row(b, h_kv, col),
                 p_.head_dim_v, seen_[col]);
    }
    add_gradients(b, h, h_kv, row, r);
  }

  void add_gradients(Index b, Index h, Index h_kv, Index row, PlainResult& r) {
    const double* q = q_.row(b, h, row);
    const double* dout = dout_.row(b, h, row);
    float delta = 0, delta_spill = 0;
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      const double* v = v_.row(b, h_kv, col);
      dp_[col] = inner(dot(dout, v, p_.head_dim_v));
      dp_error_[col] = u_ * dot_abs(dout, v, p_.head_dim_v);
      (seen_[col] ? delta : delta_spill) +=
          static_cast<float>(weight_[col]) * static_cast<float>(dp_[col]);
    }
    // A device takes delta from dout and the o it was given, which was rounded to its dtype.
    const double delta_error =
        (u_ + roundoff(t_.o)) * dot_abs(dout, r.o.value.row(b, h, row), p_.head_dim_v);
    for (Index col = 0; col < p_.seqlen_k; ++col) {
      const double centred = static_cast<float>(dp_[col]) - delta;
      const double ds = inner(weight_[col] * centred * slope_[col]);
      const double slope = std::fabs(slope_[col]);
      const double error = part(weight_error_[col], std::fabs(centred) * slope) +
                           part(weight_[col], slope * (dp_error_[col] + delta_error) +
                                                  u_ * std::fabs(centred * scale_));
      add_scaled(r.dv, b, h_kv, col, weight_[col], weight_error_[col], dout, p_.head_dim_v,
                 seen_[col]);
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
  float scale_ = 0;
  std::vector<char> seen_;
  std::vector<double> weight_, slope_, weight_error_, dp_,
      dp_error_;  // of one row, a number per col
};

}  // namespace ingot::conformance
