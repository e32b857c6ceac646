#include "parts.hpp"

#include <charconv>

#include "failure.hpp"
#include "options.hpp"

namespace ingot::cli {
namespace {

/// Strides of an array seen with the axes of `target`: 0 where it has one element or no axis.
Shape broadcast(const char* name, const Array& array, const Shape& target) {
  const std::size_t rank = array.shape.size();
  const auto complain = [&] {
    return Failure(std::string(name) + ": shape " + shape_text(array.shape) +
                   " does not broadcast to " + shape_text(target));
  };
  if (rank > target.size()) throw complain();
  const std::size_t missing = target.size() - rank;
  Shape strides(target.size(), 0);
  for (std::size_t i = 0; i < rank; ++i) {
    const std::int64_t extent = array.shape[i];
    if (extent != 1 && extent != target[missing + i]) throw complain();
    if (extent != 1) strides[missing + i] = array.strides[i];
  }
  return strides;
}

Tensor tensor_with(const Array& array, const Shape& strides, std::size_t first) {
  Tensor tensor{array.data.get(), {}};
  for (std::size_t i = 0; i < strides.size(); ++i) tensor.stride[first + i] = strides[i];
  return tensor;
}

Tensor tensor_of_pairs(const char* name, const Array& array, const Problem& p) {
  const Shape pairs{p.batch, p.num_heads, p.seqlen_q, p.seqlen_k};
  return tensor_with(array, broadcast(name, array, pairs), 0);
}

void convert(const char* name, Array& array, ingot_dtype dtype, std::string& narrowed) {
  if (array.dtype == dtype) return;
  if (array.dtype == INGOT_F64) narrowed += (narrowed.empty() ? "" : ", ") + std::string(name);
  array = converted(array, dtype);
}

std::uint64_t parse_seed(const std::string& text) {
  std::uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, seed);
  if (error == std::errc() && stop == end) return seed;
  throw UsageError("--seed: must be a whole number from 0 to 18446744073709551615, got " + text);
}

Dtype part_dtype(const char* option, const std::string& name) {
  const std::optional<ingot_dtype> dtype = dtype_from_name(name);
  if (dtype && *dtype != INGOT_F64) return static_cast<Dtype>(*dtype);
  throw UsageError(std::string(option) + ": must be f32, f16 or bf16, got " + name);
}

void parse_bias_shape(const std::string& text, Problem& p) {
  const auto complain = [&] {
    return UsageError(
        "--bias-shape: must be BATCH,HEADS,ROWS,COLS, four whole numbers, each 1 or the size of "
        "the problem, got " +
        text);
  };
  const std::int64_t full[] = {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k};
  const char *at = text.data(), *const end = at + text.size();
  for (std::size_t i = 0; i < 4; ++i) {
    const auto [stop, error] = std::from_chars(at, end, p.bias_shape[i]);
    const bool is_number = error == std::errc() && (i == 3 ? stop == end : stop != end);
    if (!is_number || (i < 3 && *stop != ',')) throw complain();
    if (p.bias_shape[i] != 1 && p.bias_shape[i] != full[i]) throw complain();
    at = stop + 1;
  }
}

}  // namespace

void DropoutOptions::apply(Problem& problem) const {
  if (seed && !probability) throw UsageError("--seed: needs --dropout");
  if (probability) problem.dropout = *probability;
}

void add_dropout_options(CLI::App& app, DropoutOptions& options) {
  const auto dropout = [&options](const std::string& text) {
    const double p = parse_number("--dropout", text);
    if (!(p >= 0 && p < 1)) {
      throw UsageError("--dropout: must be at least 0 and below 1, got " + text);
    }
    options.probability = static_cast<float>(p);
  };
  app.add_option_function<std::string>("--dropout", dropout,
                                       "probability that a weight is taken away")
      ->type_name("P");
  const auto seed = [&options](const std::string& text) { options.seed = parse_seed(text); };
  app.add_option_function<std::string>("--seed", seed, "which weights dropout takes (default 0)")
      ->type_name("N");
}

void PartOptions::apply(Problem& p) const {
  p.alibi = alibi, p.mask = mask, p.prefix = prefix;
  if (!bias.empty()) p.bias_dtype = part_dtype("--bias", bias);
  if (!sinks.empty()) p.sinks_dtype = part_dtype("--sinks", sinks);
  if (!bias_shape.empty() && bias.empty()) throw UsageError("--bias-shape: needs --bias");
  if (!bias_shape.empty()) parse_bias_shape(bias_shape, p);
  dropout.apply(p);
}

void add_part_options(CLI::App& app, PartOptions& o) {
  app.add_flag("--alibi", o.alibi, "with slopes of ALiBi");
  app.add_flag("--mask", o.mask, "with a mask, a byte for every pair");
  app.add_flag("--prefix-len", o.prefix, "with keys in front that every row sees");
  add_text(app, "--bias", o.bias, "with a bias: f32, f16 or bf16")->type_name("T");
  add_text(app, "--bias-shape", o.bias_shape, "of the bias (default: all of the problem's sizes)")
      ->type_name("B,H,Q,K");
  add_text(app, "--sinks", o.sinks, "with a sink for every head: f32, or the dtype of q")
      ->type_name("T");
  add_dropout_options(app, o.dropout);
}

std::string part_names(const Problem& p) {
  std::string names;
  const auto add = [&](bool is_on, const char* name) {
    if (is_on) names += (names.empty() ? "" : " ") + std::string(name);
  };
  add(p.alibi, "alibi"), add(p.bias_dtype != Dtype::automatic, "bias"), add(p.mask, "mask");
  add(p.prefix, "prefix"), add(p.sinks_dtype != Dtype::automatic, "sinks");
  add(p.dropout > 0, "dropout");
  return names;
}

void PartArrays::turn_on(Problem& p, std::string& narrowed) {
  p.alibi = alibi.has_value(), p.mask = mask.has_value(), p.prefix = prefix_len.has_value();
  if (alibi) convert("alibi", *alibi, INGOT_F32, narrowed);
  if (prefix_len) convert("prefix_len", *prefix_len, I32, narrowed);
  if (bias) {
    if (bias->dtype == INGOT_F64) convert("bias", *bias, INGOT_F32, narrowed);
    p.bias_dtype = static_cast<Dtype>(bias->dtype);
    const std::size_t missing = bias->shape.size() < 4 ? 4 - bias->shape.size() : 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const bool is_one = i < missing || bias->shape[i - missing] == 1;
      p.bias_shape[i] = is_one ? 1 : 0;
    }
  }
  if (sinks) {
    if (sinks->dtype != static_cast<ingot_dtype>(p.q_dtype))
      convert("sinks", *sinks, INGOT_F32, narrowed);
    p.sinks_dtype = static_cast<Dtype>(sinks->dtype);
  }
}

PartTensors PartArrays::tensors(const Problem& p) const {
  PartTensors t{};
  if (alibi) {
    const Shape strides = broadcast("alibi", *alibi, {p.batch, p.num_heads});
    t.alibi_slopes = tensor_with(*alibi, strides, 0);
  }
  if (bias) t.bias = bias_tensor(*bias, p);
  if (mask) t.mask = tensor_of_pairs("mask", *mask, p);
  if (sinks) t.sinks = sinks_tensor(*sinks, p);
  if (prefix_len)
    t.prefix_len = tensor_with(*prefix_len, broadcast("prefix_len", *prefix_len, {p.batch}), 0);
  t.dropout_seed = seed;
  return t;
}

Array make_dbias(const PartArrays& parts) {
  return make_array(parts.bias->dtype, parts.bias->shape);
}
Array make_dsinks(const PartArrays& parts, const Problem& p) {
  return make_array(parts.sinks->dtype, {p.num_heads});
}

Tensor bias_tensor(const Array& array, const Problem& p) {
  return tensor_of_pairs("bias", array, p);
}
Tensor sinks_tensor(const Array& array, const Problem& p) {
  return tensor_with(array, broadcast("sinks", array, {p.num_heads}), 1);
}

}  // namespace ingot::cli
