#include "workload.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "device_memory.hpp"
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

double pairs(const Problem& p) {
  return static_cast<double>(p.batch * p.num_heads) * static_cast<double>(p.seqlen_q) *
         static_cast<double>(p.seqlen_k);
}

double pairs(const Workload& w) {
  return w.problem.causal == Causal::none ? pairs(w.problem) : pairs(w.problem) / 2;
}

/// 0 where there is none.
double bytes_of(Dtype dtype) {
  return static_cast<double>(dtype_bytes(static_cast<ingot_dtype>(dtype)));
}

Shape bias_shape(const Problem& p) {
  Shape shape{p.batch, p.num_heads, p.seqlen_q, p.seqlen_k};
  for (std::size_t i = 0; i < 4; ++i) {
    if (p.bias_shape[i] != 0) shape[i] = p.bias_shape[i];
  }
  return shape;
}

double bias_elements(const Problem& p) {
  double count = 1;
  for (const std::int64_t extent : bias_shape(p)) count *= static_cast<double>(extent);
  return count;
}

// A block of normal numbers of prime length, repeated: no two rows that are multiplied are equal.
void fill_normal(const Array& array, unsigned seed) {
  constexpr std::size_t period = 65537;
  const std::size_t size = dtype_bytes(array.dtype);
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<std::byte> block(period * size);
  for (std::size_t i = 0; i < period; ++i) {
    // Of a mask, half of the bytes say yes.
    const double x = normal(generator);
    write_element(array.dtype == U8 ? (x > 0 ? 1 : 0) : x, array.dtype, block.data() + i * size);
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
  const double bias = bias_elements(p) * bytes_of(p.bias_dtype);
  const double mask = p.mask ? pairs(w.problem) : 0;
  const double forward = element * (rows * (d + dv) + keys * (d + dv)) + bias + mask;
  // Backward reads what forward reads and writes, and dout and lse; it writes three gradients.
  const double gradients = element * (rows * (d + dv) + keys * (d + dv)) + 4 * rows + bias;
  return w.pass == INGOT_FORWARD ? forward : forward + gradients;
}

Array normal_array(const Workload& w, std::int64_t heads, std::int64_t seqlen, std::int64_t dim,
                   unsigned seed) {
  Array array = make_array(static_cast<ingot_dtype>(w.problem.q_dtype),
                           {w.problem.batch, heads, seqlen, dim});
  fill_normal(array, seed);
  return array;
}

Tensor Operands::place(Array array, const std::string& device) {
  const Shape n = array.shape;
  arrays_.push_back(has_own_memory(device) ? on_device(array, device) : std::move(array));
  return bhsd(arrays_.back().data.get(), n[1], n[2], n[3]);
}

/// Slopes of ALiBi as models have them, numbers of a normal distribution, and a prefix of half of
/// the keys.
PartTensors Operands::make_parts(const Workload& w, const std::string& device) {
  const Problem& p = w.problem;
  PartTensors parts{};
  const auto make = [&](ingot_dtype dtype, const Shape& shape) {
    const Array array = make_array(dtype, shape);
    fill_normal(array, static_cast<unsigned>(arrays_.size()) + 1);
    return place(array, device);
  };
  if (p.alibi) {
    const Array slopes = make_array(INGOT_F32, {p.batch, p.num_heads, 1, 1});
    for (std::int64_t i = 0; i < p.batch * p.num_heads; ++i) {
      const double head = static_cast<double>(i % p.num_heads + 1);
      write_element(std::exp2(-8 * head / static_cast<double>(p.num_heads)), INGOT_F32,
                    slopes.data.get() + i * 4);
    }
    parts.alibi_slopes = place(slopes, device);
  }
  if (p.bias_dtype != Dtype::automatic)
    parts.bias = make(static_cast<ingot_dtype>(p.bias_dtype), bias_shape(p));
  if (p.mask) parts.mask = make(U8, {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k});
  if (p.sinks_dtype != Dtype::automatic)
    parts.sinks = make(static_cast<ingot_dtype>(p.sinks_dtype), {1, p.num_heads, 1, 1});
  if (p.prefix) {
    const Array lengths = make_array(I32, {p.batch, 1, 1, 1});
    for (std::int64_t b = 0; b < p.batch; ++b)
      write_element(static_cast<double>(p.seqlen_k / 2), I32, lengths.data.get() + b * 4);
    parts.prefix_len = place(lengths, device);
  }
  parts.dropout_seed = 1;
  return parts;
}

Operands::Operands(const Workload& w, const std::string& device) {
  const Problem& p = w.problem;
  const auto make = [&](std::int64_t heads, std::int64_t seqlen, std::int64_t dim) {
    const auto seed = static_cast<unsigned>(arrays_.size()) + 1;
    return place(normal_array(w, heads, seqlen, dim, seed), device);
  };
  forward_.q = make(p.num_heads, p.seqlen_q, p.head_dim);
  forward_.k = make(p.num_heads_kv, p.seqlen_k, p.head_dim);
  forward_.v = make(p.num_heads_kv, p.seqlen_k, p.head_dim_v);
  forward_.o = make(p.num_heads, p.seqlen_q, p.head_dim_v);
  forward_.lse = place(make_array(INGOT_F32, {p.batch, p.num_heads, p.seqlen_q, 1}), device);
  forward_.parts = make_parts(w, device);
  if (w.pass == INGOT_FORWARD) return;
  backward_ = {
      .q = forward_.q, .k = forward_.k, .v = forward_.v, .o = forward_.o, .lse = forward_.lse};
  backward_.parts = forward_.parts;
  backward_.dout = make(p.num_heads, p.seqlen_q, p.head_dim_v);
  backward_.dq = make(p.num_heads, p.seqlen_q, p.head_dim);
  backward_.dk = make(p.num_heads_kv, p.seqlen_k, p.head_dim);
  backward_.dv = make(p.num_heads_kv, p.seqlen_k, p.head_dim_v);
  if (p.bias_dtype != Dtype::automatic)
    backward_.dbias =
        place(make_array(static_cast<ingot_dtype>(p.bias_dtype), bias_shape(p)), device);
  if (p.sinks_dtype != Dtype::automatic)
    backward_.dsinks =
        place(make_array(static_cast<ingot_dtype>(p.sinks_dtype), {1, p.num_heads, 1, 1}), device);
}

void Operands::run(const Plan& plan, ingot_pass pass) {
  pass == INGOT_FORWARD ? plan.forward(forward_) : plan.backward(backward_);
}

ingot_event* Operands::submit(const Plan& plan, ingot_pass pass) {
  ingot_event* event = nullptr;
  if (pass == INGOT_FORWARD) {
    ForwardArgs args = forward_;
    args.submission.event = &event;
    plan.forward(args);
  } else {
    BackwardArgs args = backward_;
    args.submission.event = &event;
    plan.backward(args);
  }
  return event;
}

namespace {

constexpr std::size_t min_runs = 3, max_runs = 10000;

Spread spread_of(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double part) {
    return times[static_cast<std::size_t>(
        std::lround(part * static_cast<double>(times.size() - 1)))];
  };
  return {at(0.5), at(0.1), at(0.9), times.size()};
}

/// Calls queued one behind the other, several at a time, by the device's clock.
Spread measure_queued(const Plan& plan, const Workload& w, double seconds,
                      const std::string& device) {
  constexpr std::size_t queued = 8;
  Operands operands(w, device);
  const auto run = [&](std::size_t count, ingot_pass pass) {
    std::vector<double> times;
    std::vector<ingot_event*> events;
    for (std::size_t i = 0; i < count; ++i) events.push_back(operands.submit(plan, pass));
    for (ingot_event* event : events) {
      double gpu_seconds = 0;
      const ingot_status status = ingot_event_wait(event, &gpu_seconds);
      times.push_back(gpu_seconds * 1e3);
      detail::check(status);
      ingot_event_destroy(event);
    }
    return times;
  };
  run(1, INGOT_FORWARD);
  run(1, w.pass);
  std::vector<double> times;
  double total = 0;
  while (times.size() < min_runs || (total < seconds * 1e3 && times.size() < max_runs)) {
    for (const double time : run(queued, w.pass)) {
      times.push_back(time);
      total += time;
    }
  }
  return spread_of(std::move(times));
}

}  // namespace

Spread measure(double seconds, const std::function<void()>& f) {
  f();
  std::vector<double> times;
  double total = 0;
  while (times.size() < min_runs || (total < seconds * 1e3 && times.size() < max_runs)) {
    times.push_back(milliseconds(f));
    total += times.back();
  }
  return spread_of(std::move(times));
}

Spread measure(const Plan& plan, const Workload& w, double seconds, const std::string& device) {
  if (has_own_memory(device)) return measure_queued(plan, w, seconds, device);
  Operands operands(w);
  if (w.pass == INGOT_BACKWARD) operands.run(plan, INGOT_FORWARD);
  return measure(seconds, [&] { operands.run(plan, w.pass); });
}

}  // namespace ingot::cli
