// The definition of attention, in fp64. For every query row, over the cols it sees:
//
//   score = scale * <q, k>, or softcap * tanh(scale * <q, k> / softcap)
//           - alibi_slope * |col - position of the row| + bias
//   lse = log(sum exp(score) + exp(sink))      p = exp(score - lse)      o = sum keep * p * v
//
// and with dout, the gradient of some loss with respect to o:
//
//   dv = keep * p * dout      dp = keep * <dout, v>      dbias = p * (dp - delta)
//   delta = sum p * dp        dsink = -exp(sink - lse) * delta
//
//   dq = dbias * dscore/d<q, k> * k      dk = dbias * dscore/d<q, k> * q
//
// keep is 0 for a weight that dropout takes, else 1 / (1 - dropout). A row without weight (it sees
// no key, or every score it sees is -inf) has o = 0, lse = -inf and no gradient. Pairs that are not
// visible are left out of the sums, so an Inf or NaN there reaches nothing.
#include "cpu/reference.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "core/operands.hpp"
#include "cpu/reference_pairs.hpp"

namespace ingot {
namespace {

using reference::infinity;
using reference::load;
using reference::Pairs;
using reference::store;

/// Looks whether the call is cancelled whenever some milliseconds of work are done, counted in
/// elements: rows and heads may be of any length.
class Progress {
 public:
  explicit Progress(const Submission& submission) : submission_(submission) { look(); }

  void did(std::int64_t elements) {
    left_ -= elements;
    if (left_ < 0) look();
  }

 private:
  void look() {
    throw_if_cancelled(submission_);
    left_ = 1 << 20;
  }

  const Submission& submission_;
  std::int64_t left_ = 0;
};

/// Memory that nothing has written yet: filling gigabytes with zeros takes its time, too.
template <class T>
std::unique_ptr<T[]> memory_for(std::int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count));
}

/// One head of a tensor in fp64: [rows][cols], packed.
struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::unique_ptr<double[]> data;

  Matrix(std::int64_t rows_, std::int64_t cols_)
      : rows(rows_), cols(cols_), data(memory_for<double>(rows_ * cols_)) {}
  double* operator[](std::int64_t row) { return data.get() + row * cols; }
  const double* operator[](std::int64_t row) const { return data.get() + row * cols; }
};

Matrix zeros(std::int64_t rows, std::int64_t cols, Progress& progress) {
  Matrix m(rows, cols);
  for (std::int64_t row = 0; row < rows; ++row, progress.did(cols)) std::fill_n(m[row], cols, 0.0);
  return m;
}

std::int64_t offset(const Strides& stride, std::int64_t b, std::int64_t h, std::int64_t s,
                    std::int64_t d) {
  return b * stride[0] + h * stride[1] + s * stride[2] + d * stride[3];
}

Matrix load_head(const ConstTensor& tensor, Dtype dtype, std::int64_t b, std::int64_t h,
                 std::int64_t rows, std::int64_t cols, Progress& progress) {
  Matrix m(rows, cols);
  for (std::int64_t s = 0; s < rows; ++s, progress.did(cols)) {
    for (std::int64_t d = 0; d < cols; ++d)
      m[s][d] = load(tensor.data, dtype, offset(tensor.stride, b, h, s, d));
  }
  return m;
}

void store_head(const Tensor& tensor, Dtype dtype, std::int64_t b, std::int64_t h, const Matrix& m,
                Progress& progress) {
  if (tensor.data == nullptr) return;
  for (std::int64_t s = 0; s < m.rows; ++s, progress.did(m.cols)) {
    for (std::int64_t d = 0; d < m.cols; ++d)
      store(tensor.data, dtype, offset(tensor.stride, b, h, s, d), m[s][d]);
  }
}

double dot(const double* x, const double* y, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

/// y += a * x
void add_scaled(double* y, double a, const double* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

/// One row of the score matrix after softmax. qk and p hold a number per col; only those of visible
/// cols mean something.
struct SoftmaxRow {
  std::unique_ptr<std::int64_t[]> visible_cols;
  std::size_t visible_count = 0;
  std::unique_ptr<double[]> qk, p;
  double lse = -infinity;

  explicit SoftmaxRow(std::int64_t cols)
      : visible_cols(memory_for<std::int64_t>(cols)),
        qk(memory_for<double>(cols)),
        p(memory_for<double>(cols)) {}

  std::span<const std::int64_t> cols() const { return {visible_cols.get(), visible_count}; }
  bool has_weight() const { return lse != -infinity; }
};

void softmax(const Pairs& pairs, const double* q, const Matrix& k, std::int64_t row,
             SoftmaxRow& out, Progress& progress) {
  out.visible_count = 0;
  out.lse = -infinity;
  double largest = pairs.sink();
  for (std::int64_t col = 0; col < k.rows; ++col, progress.did(1)) {
    if (!pairs.visible(row, col)) continue;
    out.visible_cols[out.visible_count++] = col;
    out.qk[col] = dot(q, k[col], k.cols);
    progress.did(k.cols);
    const double s = pairs.score(out.qk[col], row, col);
    if (s > largest || std::isnan(s)) largest = s;  // a NaN stays: nothing is greater
  }
  if (largest == -infinity) return;
  double sum = std::exp(pairs.sink() - largest);
  for (const std::int64_t col : out.cols()) {
    out.p[col] = std::exp(pairs.score(out.qk[col], row, col) - largest);
    sum += out.p[col];
    progress.did(8);  // an exponential
  }
  for (const std::int64_t col : out.cols()) {
    out.p[col] /= sum;
    progress.did(1);
  }
  out.lse = largest + std::log(sum);
}

/// The gradients of the parts: what all rows and heads add to.
struct PartSums {
  Shape bias_shape{};
  std::vector<double> dbias, dsinks;  // of bias_shape, of every head; empty: not wanted

  PartSums(const Problem& p, const BackwardArgs& args) : bias_shape(p.parts.bias_shape) {
    if (args.dbias.data != nullptr) dbias.resize(static_cast<std::size_t>(count_of(bias_shape)));
    if (args.dsinks.data != nullptr) dsinks.resize(static_cast<std::size_t>(p.num_heads));
  }

  void add_to_bias(const Shape& place, double x) {
    if (dbias.empty()) return;
    std::int64_t index = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      index = index * bias_shape[i] + (bias_shape[i] == 1 ? 0 : place[i]);
    }
    dbias[static_cast<std::size_t>(index)] += x;
  }
  void add_to_sink(std::int64_t head, double x) {
    if (!dsinks.empty()) dsinks[static_cast<std::size_t>(head)] += x;
  }
};

/// One row of the backward pass: where it is, and its operands.
struct BackwardRow {
  std::int64_t b, h, row;
  const double *q, *dout;
  double *dq, *dp;
};

/// Adds what one row contributes to the gradients.
void backward_row(const Pairs& pairs, const SoftmaxRow& s, const BackwardRow& r, const Matrix& k,
                  const Matrix& v, Matrix& dk, Matrix& dv, PartSums& parts, Progress& progress) {
  double delta = 0;
  for (const std::int64_t col : s.cols()) {
    r.dp[col] = pairs.keep(r.row, col) * dot(r.dout, v[col], v.cols);
    delta += s.p[col] * r.dp[col];
    progress.did(v.cols);
  }
  const double sink = pairs.sink();
  if (sink != -infinity) parts.add_to_sink(r.h, -std::exp(sink - s.lse) * delta);
  for (const std::int64_t col : s.cols()) {
    const double dscore = s.p[col] * (r.dp[col] - delta);
    parts.add_to_bias({r.b, r.h, r.row, col}, dscore);
    const double ds = dscore * pairs.score_derivative(s.qk[col]);
    add_scaled(dv[col], s.p[col] * pairs.keep(r.row, col), r.dout, v.cols);
    add_scaled(r.dq, ds, k[col], k.cols);
    add_scaled(dk[col], ds, r.q, k.cols);
    progress.did(2 * k.cols + v.cols);
  }
}

class ReferenceBackend final : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::string description() const override {
    return "fp64 on one thread, the definition of the answer; slow";
  }

  Plan plan(const Problem& problem) const override {
    PassPlan pass;
    pass.config.kernel = "reference";
    pass.config.target = "fp64";
    pass.config.head_dim = problem.head_dim;
    pass.config.head_dim_v = problem.head_dim_v;
    pass.config.block_m = 1;
    pass.config.block_n = 1;
    pass.config.softcap = problem.softcap > 0;
    pass.config.masked = problem.causal != Causal::none || problem.window_left >= 0 ||
                         problem.window_right >= 0 || problem.parts.mask;
    pass.units = problem.batch * problem.num_heads;
    pass.why = {"three loops in fp64 over one head after the other, to compare other devices with",
                "allocates the operands of one head in fp64, O(seqlen) memory, on every call"};
    return {problem, name(), pass, pass};
  }

  void forward(const Plan& plan, const ForwardArgs& args) override {
    require_host_call(args.submission, args.parts);
    const Problem& p = plan.problem;
    if (p.seqlen_q == 0) return;  // else o has an element for every b and h below
    const std::int64_t group = p.num_heads / p.num_heads_kv;
    Progress progress(args.submission);
    for (std::int64_t b = 0; b < p.batch; ++b) {
      for (std::int64_t h = 0; h < p.num_heads; ++h)
        forward_head(p, args, b, h, h / group, progress);
    }
  }

  void backward(const Plan& plan, const BackwardArgs& args) override {
    require_host_call(args.submission, args.parts);
    const Problem& p = plan.problem;
    const bool dq = args.dq.data != nullptr && p.seqlen_q > 0;
    const bool dkv = (args.dk.data != nullptr || args.dv.data != nullptr) && p.seqlen_k > 0;
    PartSums parts(p, args);
    Progress progress(args.submission);
    const bool any_element = dq || dkv || (!parts.dbias.empty() && p.seqlen_q > 0) ||
                             (!parts.dsinks.empty() && p.seqlen_q > 0 && p.seqlen_k > 0);
    for (std::int64_t b = 0; any_element && b < p.batch; ++b) {
      for (std::int64_t h = 0; h < p.num_heads_kv; ++h) {
        backward_head_kv(p, args, b, h, parts, progress);
      }
    }
    store_parts(p, args, parts, progress);
  }

 private:
  static void forward_head(const Problem& p, const ForwardArgs& args, std::int64_t b,
                           std::int64_t h, std::int64_t h_kv, Progress& progress) {
    const Matrix q = load_head(args.q, p.q, b, h, p.seqlen_q, p.head_dim, progress);
    const Matrix k = load_head(args.k, p.k, b, h_kv, p.seqlen_k, p.head_dim, progress);
    const Matrix v = load_head(args.v, p.v, b, h_kv, p.seqlen_k, p.head_dim_v, progress);
    Matrix o = zeros(p.seqlen_q, p.head_dim_v, progress);
    SoftmaxRow s(p.seqlen_k);
    const Pairs pairs(p, args.parts, b, h);
    for (std::int64_t row = 0; row < p.seqlen_q; ++row) {
      softmax(pairs, q[row], k, row, s, progress);
      if (s.has_weight()) {
        for (const std::int64_t col : s.cols()) {
          add_scaled(o[row], pairs.keep(row, col) * s.p[col], v[col], p.head_dim_v);
          progress.did(p.head_dim_v);
        }
      }
      if (args.lse.data != nullptr)
        store(args.lse.data, Dtype::f32, offset(args.lse.stride, b, h, row, 0), s.lse);
    }
    store_head(args.o, p.o, b, h, o, progress);
  }

  /// All query heads that share one key/value head: their contributions to dk and dv add up.
  static void backward_head_kv(const Problem& p, const BackwardArgs& args, std::int64_t b,
                               std::int64_t h_kv, PartSums& parts, Progress& progress) {
    // Without a query any number of heads adds nothing.
    const std::int64_t group = p.seqlen_q == 0 ? 0 : p.num_heads / p.num_heads_kv;
    const Matrix k = load_head(args.k, p.k, b, h_kv, p.seqlen_k, p.head_dim, progress);
    const Matrix v = load_head(args.v, p.v, b, h_kv, p.seqlen_k, p.head_dim_v, progress);
    Matrix dk = zeros(p.seqlen_k, p.head_dim, progress);
    Matrix dv = zeros(p.seqlen_k, p.head_dim_v, progress);
    SoftmaxRow s(p.seqlen_k);
    const auto dp = memory_for<double>(p.seqlen_k);
    for (std::int64_t h = h_kv * group; h < (h_kv + 1) * group; ++h) {
      const Matrix q = load_head(args.q, p.q, b, h, p.seqlen_q, p.head_dim, progress);
      const Matrix dout = load_head(args.dout, p.dout, b, h, p.seqlen_q, p.head_dim_v, progress);
      Matrix dq = zeros(p.seqlen_q, p.head_dim, progress);
      const Pairs pairs(p, args.parts, b, h);
      for (std::int64_t row = 0; row < p.seqlen_q; ++row) {
        softmax(pairs, q[row], k, row, s, progress);
        const BackwardRow r{b, h, row, q[row], dout[row], dq[row], dp.get()};
        if (s.has_weight()) backward_row(pairs, s, r, k, v, dk, dv, parts, progress);
      }
      store_head(args.dq, p.dq, b, h, dq, progress);
    }
    store_head(args.dk, p.dk, b, h_kv, dk, progress);
    store_head(args.dv, p.dv, b, h_kv, dv, progress);
  }

  static void store_parts(const Problem& p, const BackwardArgs& args, const PartSums& parts,
                          Progress& progress) {
    const Shape& n = parts.bias_shape;
    for (std::size_t i = 0; i < parts.dbias.size(); ++i, progress.did(1)) {
      const auto index = static_cast<std::int64_t>(i);
      const std::int64_t d = index % n[3], s = index / n[3] % n[2], bh = index / n[3] / n[2];
      store(args.dbias.data, p.parts.dbias_dtype,
            offset(args.dbias.stride, bh / n[1], bh % n[1], s, d), parts.dbias[i]);
    }
    for (std::size_t h = 0; h < parts.dsinks.size(); ++h, progress.did(1)) {
      store(args.dsinks.data, p.parts.dsinks_dtype,
            static_cast<std::int64_t>(h) * args.dsinks.stride[1], parts.dsinks[h]);
    }
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace ingot
