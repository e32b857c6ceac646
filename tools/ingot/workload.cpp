#include "workload.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "dtype.hpp"

namespace ingot::cli {
namespace {

constexpr Dtype dtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};

std::string shape_label(const std::string& model, const Problem& p) {
  std::string label = model + (model.empty() ? "" : " ") + std::to_string(p.batch) + "x" +
                      std::to_string(p.num_heads);
  if (p.num_heads_kv != p.num_heads) label += "/" + std::to_string(p.num_heads_kv);
  label += "x" + std::to_string(p.seqlen_q);
  if (p.seqlen_k != p.seqlen_q) label += "/" + std::to_string(p.seqlen_k);
  label += "x" + std::to_string(p.head_dim);
  if (p.head_dim_v != p.head_dim) label += "/" + std::to_string(p.head_dim_v);
  return label + (p.causal != Causal::none ? " causal" : "");
}

Workload make_workload(const std::string& model, Problem p, Dtype dtype, ingot_pass pass) {
  p.q_dtype = dtype;
  const std::string shape = shape_label(model, p);
  const std::string name(dtype_name(static_cast<ingot_dtype>(dtype)));
  return {shape + " " + name + (pass == INGOT_FORWARD ? " forward" : " backward"), shape, p, pass};
}

Problem square(std::int64_t batch, std::int64_t heads, std::int64_t seqlen, std::int64_t dim,
               Causal causal = Causal::none) {
  return {.batch = batch,
          .num_heads = heads,
          .num_heads_kv = heads,
          .seqlen_q = seqlen,
          .seqlen_k = seqlen,
          .head_dim = dim,
          .head_dim_v = dim,
          .causal = causal};
}

Problem decode(std::int64_t heads_kv) {
  Problem p = square(1, 32, 1, 128);
  p.num_heads_kv = heads_kv;
  p.seqlen_k = 8192;
  return p;
}

double pairs(const Workload& w) {
  const Problem& p = w.problem;
  const double all = static_cast<double>(p.batch * p.num_heads) * static_cast<double>(p.seqlen_q) *
                     static_cast<double>(p.seqlen_k);
  return p.causal == Causal::none ? all : all / 2;
}

// A block of normal numbers of prime length, repeated: no two rows that are multiplied are equal.
void fill_normal(const Array& array, unsigned seed) {
  constexpr std::size_t period = 65537;
  const std::size_t size = dtype_bytes(array.dtype);
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<std::byte> block(period * size);
  for (std::size_t i = 0; i < period; ++i) {
    write_element(normal(generator), array.dtype, block.data() + i * size);
  }
  const std::size_t total = packed_bytes(array);
  for (std::size_t at = 0; at < total; at += block.size()) {
    std::memcpy(array.data.get() + at, block.data(), std::min(block.size(), total - at));
  }
}

double milliseconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

}  // namespace

std::vector<Workload> standard_workloads() {
  std::vector<Workload> all;
  const auto add = [&](const std::string& model, const Problem& p, bool backward) {
    for (const Dtype dtype : dtypes) {
      all.push_back(make_workload(model, p, dtype, INGOT_FORWARD));
      if (backward) all.push_back(make_workload(model, p, dtype, INGOT_BACKWARD));
    }
  };
  for (const std::int64_t dim : {64, 80, 128, 256}) {
    add("", square(1, 8, 2048, dim), true);
    add("", square(1, 8, 2048, dim, Causal::top_left), true);
  }
  add("encoder", square(8, 12, 128, 64), true);
  add("decode", decode(32), false);
  add("decode", decode(8), false);
  add("tiny", square(1, 1, 16, 64), true);
  return all;
}

std::vector<Workload> model_workloads(Dtype dtype, std::int64_t scale_down) {
  struct Row {
    const char* model;
    std::int64_t heads, heads_kv, seqlen, dim, dim_v;
    Causal causal;
  };
  static const Row rows[] = {{"llama3-8b", 32, 8, 1024, 128, 128, Causal::top_left},
                             {"gemma-2b", 8, 1, 1024, 256, 256, Causal::top_left},
                             {"gemma-global", 8, 1, 1024, 512, 512, Causal::top_left},
                             {"deepseek-mla", 16, 16, 1024, 192, 128, Causal::top_left},
                             {"sd-1.5", 8, 8, 4096, 40, 40, Causal::none},
                             {"sd-2.1", 10, 10, 1024, 64, 64, Causal::none},
                             {"sd-1.5", 8, 8, 1024, 80, 80, Causal::none},
                             {"sd-1.5", 8, 8, 256, 160, 160, Causal::none},
                             {"vit-base", 12, 12, 197, 64, 64, Causal::none},
                             {"vit-so400m", 16, 16, 729, 72, 72, Causal::none},
                             {"vit-huge", 16, 16, 257, 80, 80, Causal::none}};
  std::vector<Workload> all;
  for (const Row& row : rows) {
    Problem p = square(1, row.heads, std::max<std::int64_t>(1, row.seqlen / scale_down), row.dim,
                       row.causal);
    p.num_heads_kv = row.heads_kv;
    p.head_dim_v = row.dim_v;
    all.push_back(make_workload(row.model, p, dtype, INGOT_FORWARD));
  }
  return all;
}

double flops(const Workload& w) {
  const auto d = static_cast<double>(w.problem.head_dim);
  const auto dv = static_cast<double>(w.problem.head_dim_v);
  return pairs(w) * (w.pass == INGOT_FORWARD ? 2 * (d + dv) : 2 * (3 * d + 2 * dv));
}

double instructions(const Workload& w) {
  const auto d = static_cast<double>(w.problem.head_dim);
  const auto dv = static_cast<double>(w.problem.head_dim_v);
  return pairs(w) * (w.pass == INGOT_FORWARD ? d + dv + 5 : 4 * d + 3 * dv + 10);
}

double traffic_bytes(const Workload& w) {
  const Problem& p = w.problem;
  const auto element = static_cast<double>(dtype_bytes(static_cast<ingot_dtype>(p.q_dtype)));
  const double rows = static_cast<double>(p.batch * p.num_heads) * static_cast<double>(p.seqlen_q);
  const double keys =
      static_cast<double>(p.batch * p.num_heads_kv) * static_cast<double>(p.seqlen_k);
  const auto d = static_cast<double>(p.head_dim);
  const auto dv = static_cast<double>(p.head_dim_v);
  const double forward = element * (rows * (d + dv) + keys * (d + dv));
  // Backward reads what forward reads and writes, and dout and lse; it writes three gradients.
  const double gradients = element * (rows * (d + dv) + keys * (d + dv)) + 4 * rows;
  return w.pass == INGOT_FORWARD ? forward : forward + gradients;
}

Operands::Operands(const Workload& w) {
  const Problem& p = w.problem;
  const auto dtype = static_cast<ingot_dtype>(p.q_dtype);
  arrays_.reserve(9);
  const auto make = [&](std::int64_t heads, std::int64_t seqlen, std::int64_t dim) {
    arrays_.push_back(make_array(dtype, {p.batch, heads, seqlen, dim}));
    fill_normal(arrays_.back(), static_cast<unsigned>(arrays_.size()));
    return bhsd(arrays_.back().data.get(), heads, seqlen, dim);
  };
  forward_.q = make(p.num_heads, p.seqlen_q, p.head_dim);
  forward_.k = make(p.num_heads_kv, p.seqlen_k, p.head_dim);
  forward_.v = make(p.num_heads_kv, p.seqlen_k, p.head_dim_v);
  forward_.o = make(p.num_heads, p.seqlen_q, p.head_dim_v);
  arrays_.push_back(make_array(INGOT_F32, {p.batch, p.num_heads, p.seqlen_q, 1}));
  forward_.lse = bhsd(arrays_.back().data.get(), p.num_heads, p.seqlen_q, 1);
  if (w.pass == INGOT_FORWARD) return;
  backward_ = {
      .q = forward_.q, .k = forward_.k, .v = forward_.v, .o = forward_.o, .lse = forward_.lse};
  backward_.dout = make(p.num_heads, p.seqlen_q, p.head_dim_v);
  backward_.dq = make(p.num_heads, p.seqlen_q, p.head_dim);
  backward_.dk = make(p.num_heads_kv, p.seqlen_k, p.head_dim);
  backward_.dv = make(p.num_heads_kv, p.seqlen_k, p.head_dim_v);
}

void Operands::run(const Plan& plan, ingot_pass pass) {
  pass == INGOT_FORWARD ? plan.forward(forward_) : plan.backward(backward_);
}

Spread measure(double seconds, const std::function<void()>& f) {
  constexpr std::size_t min_runs = 3, max_runs = 10000;
  f();
  std::vector<double> times;
  double total = 0;
  while (times.size() < min_runs || (total < seconds * 1e3 && times.size() < max_runs)) {
    times.push_back(milliseconds(f));
    total += times.back();
  }
  std::sort(times.begin(), times.end());
  const auto at = [&](double part) {
    return times[static_cast<std::size_t>(
        std::lround(part * static_cast<double>(times.size() - 1)))];
  };
  return {at(0.5), at(0.1), at(0.9), times.size()};
}

Spread measure(const Plan& plan, const Workload& w, double seconds) {
  Operands operands(w);
  if (w.pass == INGOT_BACKWARD) operands.run(plan, INGOT_FORWARD);
  return measure(seconds, [&] { operands.run(plan, w.pass); });
}

}  // namespace ingot::cli
