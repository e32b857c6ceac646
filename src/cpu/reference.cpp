// The definition of attention, in fp64. For every query row, over the cols it sees:
//
//   score = scale * <q, k>, or softcap * tanh(scale * <q, k> / softcap)
//   lse = log(sum exp(score))      p = exp(score - lse)      o = sum p * v
//
// and with dout, the gradient of some loss with respect to o:
//
//   dv = p * dout      dp = <dout, v>      ds = p * (dp - sum p * dp) * dscore/d<q, k>      dq = ds
//   * k      dk = ds * q
//
// A row without weight (it sees no key, or every score it sees is -inf) has o = 0, lse = -inf and
// no gradient. Pairs that are not visible are left out of the sums, so an Inf or NaN there reaches
// nothing.
#include "cpu/reference.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/half.hpp"

namespace ingot {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

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

double load(const void* data, Dtype dtype, std::int64_t index) {
  switch (dtype) {
    case Dtype::f32:
      return read<float>(data, index);
    case Dtype::f16:
      return from_f16(read<std::uint16_t>(data, index));
    case Dtype::bf16:
      return from_bf16(read<std::uint16_t>(data, index));
    case Dtype::f64:
      return read<double>(data, index);
  }
  return 0;
}

void store(void* data, Dtype dtype, std::int64_t index, double value) {
  switch (dtype) {
    case Dtype::f32:
      return write(data, index, static_cast<float>(value));
    case Dtype::f16:
      return write(data, index, to_f16(value));
    case Dtype::bf16:
      return write(data, index, to_bf16(value));
    case Dtype::f64:
      return write(data, index, value);
  }
}

/// One head of a tensor in fp64: [rows][cols], packed.
struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> data;

  Matrix(std::int64_t rows_, std::int64_t cols_)
      : rows(rows_), cols(cols_), data(static_cast<std::size_t>(rows_ * cols_)) {}
  double* operator[](std::int64_t row) { return data.data() + row * cols; }
  const double* operator[](std::int64_t row) const { return data.data() + row * cols; }
};

std::int64_t offset(const Strides& stride, std::int64_t b, std::int64_t h, std::int64_t s,
                    std::int64_t d) {
  return b * stride[0] + h * stride[1] + s * stride[2] + d * stride[3];
}

Matrix load_head(const ConstTensor& tensor, Dtype dtype, std::int64_t b, std::int64_t h,
                 std::int64_t rows, std::int64_t cols) {
  Matrix m(rows, cols);
  for (std::int64_t s = 0; s < rows; ++s) {
    for (std::int64_t d = 0; d < cols; ++d)
      m[s][d] = load(tensor.data, dtype, offset(tensor.stride, b, h, s, d));
  }
  return m;
}

void store_head(const Tensor& tensor, Dtype dtype, std::int64_t b, std::int64_t h,
                const Matrix& m) {
  if (tensor.data == nullptr) return;
  for (std::int64_t s = 0; s < m.rows; ++s) {
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

bool visible(const Problem& problem, std::int64_t row, std::int64_t col) {
  const std::int64_t from_the_end = problem.seqlen_k - problem.seqlen_q;
  const std::int64_t position = problem.causal == Causal::top_left ? row : row + from_the_end;
  if (problem.causal != Causal::none && col > position) return false;
  if (problem.window_left >= 0 && position - col > problem.window_left) return false;
  if (problem.window_right >= 0 && col - position > problem.window_right) return false;
  return true;
}

double score(const Problem& problem, double qk) {
  const double scale = problem.scale;
  const double cap = problem.softcap;
  return cap > 0 ? cap * std::tanh(scale * qk / cap) : scale * qk;
}

/// d score / d<q, k>
double score_derivative(const Problem& problem, double qk) {
  const double scale = problem.scale;
  const double cap = problem.softcap;
  if (!(cap > 0)) return scale;
  const double t = std::tanh(scale * qk / cap);
  return scale * (1 - t * t);
}

/// One row of the score matrix after softmax. qk and p hold a number per col; only those of visible
/// cols mean something.
struct SoftmaxRow {
  std::vector<std::int64_t> cols;  // the visible ones
  std::vector<double> qk, p;
  double lse = -infinity;

  bool has_weight() const { return lse != -infinity; }
};

void softmax(const Problem& problem, const double* q, const Matrix& k, std::int64_t row,
             SoftmaxRow& out) {
  out.cols.clear();
  out.qk.resize(static_cast<std::size_t>(k.rows));
  out.p.resize(static_cast<std::size_t>(k.rows));
  out.lse = -infinity;
  double largest = -infinity;
  for (std::int64_t col = 0; col < k.rows; ++col) {
    if (!visible(problem, row, col)) continue;
    out.cols.push_back(col);
    out.qk[col] = dot(q, k[col], k.cols);
    const double s = score(problem, out.qk[col]);
    if (s > largest || std::isnan(s)) largest = s;  // a NaN stays: nothing is greater
  }
  if (largest == -infinity) return;
  double sum = 0;
  for (const std::int64_t col : out.cols) {
    out.p[col] = std::exp(score(problem, out.qk[col]) - largest);
    sum += out.p[col];
  }
  for (const std::int64_t col : out.cols) out.p[col] /= sum;
  out.lse = largest + std::log(sum);
}

/// Adds what one row contributes to the gradients.
void backward_row(const Problem& problem, const SoftmaxRow& s, const double* q, const Matrix& k,
                  const Matrix& v, const double* dout, double* dq, Matrix& dk, Matrix& dv,
                  std::vector<double>& dp) {
  dp.resize(s.p.size());
  double delta = 0;
  for (const std::int64_t col : s.cols) {
    dp[col] = dot(dout, v[col], v.cols);
    delta += s.p[col] * dp[col];
  }
  for (const std::int64_t col : s.cols) {
    const double ds = s.p[col] * (dp[col] - delta) * score_derivative(problem, s.qk[col]);
    add_scaled(dv[col], s.p[col], dout, v.cols);
    add_scaled(dq, ds, k[col], k.cols);
    add_scaled(dk[col], ds, q, k.cols);
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
    pass.config.masked =
        problem.causal != Causal::none || problem.window_left >= 0 || problem.window_right >= 0;
    pass.units = problem.batch * problem.num_heads;
    pass.why = {"three loops in fp64 over one head after the other, to compare other devices with",
                "allocates the operands of one head in fp64, O(seqlen) memory, on every call"};
    return {problem, name(), pass, pass};
  }

  void forward(const Plan& plan, const ForwardArgs& args) override {
    require_host_call(args.submission);
    const Problem& p = plan.problem;
    const std::int64_t group = p.num_heads / p.num_heads_kv;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      for (std::int64_t h = 0; h < p.num_heads; ++h) forward_head(p, args, b, h, h / group);
    }
  }

  void backward(const Plan& plan, const BackwardArgs& args) override {
    require_host_call(args.submission);
    const Problem& p = plan.problem;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      for (std::int64_t h = 0; h < p.num_heads_kv; ++h) backward_head_kv(p, args, b, h);
    }
  }

 private:
  static void forward_head(const Problem& p, const ForwardArgs& args, std::int64_t b,
                           std::int64_t h, std::int64_t h_kv) {
    throw_if_cancelled(args.submission);
    const Matrix q = load_head(args.q, p.q, b, h, p.seqlen_q, p.head_dim);
    const Matrix k = load_head(args.k, p.k, b, h_kv, p.seqlen_k, p.head_dim);
    const Matrix v = load_head(args.v, p.v, b, h_kv, p.seqlen_k, p.head_dim_v);
    Matrix o(p.seqlen_q, p.head_dim_v);
    SoftmaxRow s;
    for (std::int64_t row = 0; row < p.seqlen_q; ++row) {
      softmax(p, q[row], k, row, s);
      if (s.has_weight()) {
        for (const std::int64_t col : s.cols) add_scaled(o[row], s.p[col], v[col], p.head_dim_v);
      }
      if (args.lse.data != nullptr)
        store(args.lse.data, Dtype::f32, offset(args.lse.stride, b, h, row, 0), s.lse);
    }
    store_head(args.o, p.o, b, h, o);
  }

  /// All query heads that share one key/value head: their contributions to dk and dv add up.
  static void backward_head_kv(const Problem& p, const BackwardArgs& args, std::int64_t b,
                               std::int64_t h_kv) {
    throw_if_cancelled(args.submission);
    const std::int64_t group = p.num_heads / p.num_heads_kv;
    const Matrix k = load_head(args.k, p.k, b, h_kv, p.seqlen_k, p.head_dim);
    const Matrix v = load_head(args.v, p.v, b, h_kv, p.seqlen_k, p.head_dim_v);
    Matrix dk(p.seqlen_k, p.head_dim);
    Matrix dv(p.seqlen_k, p.head_dim_v);
    SoftmaxRow s;
    std::vector<double> dp;
    for (std::int64_t h = h_kv * group; h < (h_kv + 1) * group; ++h) {
      const Matrix q = load_head(args.q, p.q, b, h, p.seqlen_q, p.head_dim);
      const Matrix dout = load_head(args.dout, p.dout, b, h, p.seqlen_q, p.head_dim_v);
      Matrix dq(p.seqlen_q, p.head_dim);
      for (std::int64_t row = 0; row < p.seqlen_q; ++row) {
        softmax(p, q[row], k, row, s);
        if (s.has_weight()) backward_row(p, s, q[row], k, v, dout[row], dq[row], dk, dv, dp);
      }
      store_head(args.dq, p.dq, b, h, dq);
    }
    store_head(args.dk, p.dk, b, h_kv, dk);
    store_head(args.dv, p.dv, b, h_kv, dv);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace ingot
