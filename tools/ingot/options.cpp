#include "options.hpp"

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <system_error>

#include "dtype.hpp"
#include "failure.hpp"

namespace ingot::cli {

namespace {

// The nearest f32. A number that is not 0 and becomes 0, or infinite, would mean something else.
std::optional<float> as_float(double number) {
  const auto nearest = static_cast<float>(number);
  if (!std::isfinite(nearest) || nearest == 0) return std::nullopt;
  return nearest;
}

}  // namespace

std::int64_t parse_integer(const std::string& option, const std::string& text, std::int64_t low,
                           std::int64_t high) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && parsed == end && value >= low && value <= high) return value;
  // Within the largest size the library has limits of its own, and says them.
  const bool too_large =
      value > high || (error == std::errc::result_out_of_range && text[0] != '-');
  const std::string rule = high == max_size && !too_large
                               ? "of at least " + std::to_string(low)
                               : "from " + std::to_string(low) + " to " + std::to_string(high);
  throw UsageError(option + ": must be a whole number " + rule + ", got " + text);
}

double parse_number(const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const bool space = text.empty() || std::isspace(static_cast<unsigned char>(text[0])) != 0;
  if (space || end != text.c_str() + text.size()) {
    throw UsageError(option + ": must be a number, got " + text);
  }
  return value;
}

CLI::Option* add_text(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help) {
  const auto set = [name, &value](const std::string& text) {
    if (text.empty()) throw UsageError(name + ": must not be empty");
    value = text;
  };
  return app.add_option_function<std::string>(name, set, help);
}

CLI::Option* add_integer(CLI::App& app, const std::string& name, std::int64_t& value,
                         std::int64_t low, std::int64_t high, const std::string& help) {
  const auto set = [=, &value](const std::string& text) {
    value = parse_integer(name, text, low, high);
  };
  return app.add_option_function<std::string>(name, set, help)->type_name("N");
}

CLI::Option* add_seconds(CLI::App& app, std::optional<double>& value, const std::string& help) {
  const auto set = [&value](const std::string& text) {
    value = parse_number("--seconds", text);
    if (!(*value >= 0 && *value <= 3600)) {
      throw UsageError("--seconds: must be from 0 to 3600, got " + text);
    }
  };
  return app.add_option_function<std::string>("--seconds", set, help)->type_name("S");
}

void add_threads_option(CLI::App& app, DeviceOptions& options) {
  add_integer(app, "--threads", options.threads, 0, 4096,
              "threads of the CPU device; 0: all this process may use");
}

void add_device_options(CLI::App& app, DeviceOptions& options) {
  add_text(app, "--device", options.device,
           "auto, or a name that `ingot devices` prints: cpu, reference, ...")
      ->type_name("NAME");
  add_threads_option(app, options);
}

void add_variant_options(CLI::App& app, VariantOptions& options) {
  app.add_option("--causal", options.causal,
                 "top_left: row i sees keys 0..i; bottom_right: the last row sees every key")
      ->check(CLI::IsMember({"none", "top_left", "bottom_right"}))
      ->type_name("KIND");
  add_text(app, "--window", options.window,
           "a row sees LEFT keys before and RIGHT keys after its own position; -1: all of them")
      ->type_name("LEFT,RIGHT");
  const auto scale = [&options](const std::string& text) {
    options.scale = as_float(parse_number("--scale", text));
    if (options.scale) return;
    throw UsageError(
        "--scale: must be a finite number other than 0 (without it: 1 / sqrt(head_dim)), in f32, "
        "got " +
        text);
  };
  app.add_option_function<std::string>("--scale", scale,
                                       "factor of q.k (default: 1 / sqrt(head_dim))")
      ->type_name("S");
  const auto softcap = [&options](const std::string& text) {
    options.softcap = as_float(parse_number("--softcap", text));
    if (options.softcap && *options.softcap > 0) return;
    throw UsageError(
        "--softcap: must be a finite number above 0 (without it: no cap), in f32, got " + text);
  };
  app.add_option_function<std::string>("--softcap", softcap, "C: scores become C * tanh(score / C)")
      ->type_name("C");
  add_precision_option(app, options.precision);
  add_integer(app, "--workspace-limit", options.workspace_limit, 1, INT64_MAX,
              "bytes that a pass may take to be faster (default: 1.25 GiB)")
      ->type_name("BYTES");
}

void add_precision_option(CLI::App& app, std::string& precision) {
  app.add_option("--precision", precision,
                 "of products of f32: highest (the default), or high: about 1e-5 where that is "
                 "faster")
      ->check(CLI::IsMember({"highest", "high"}))
      ->type_name("KIND");
}

Precision parse_precision(const std::string& name) {
  return name == "high" ? Precision::high : Precision::highest;
}

namespace {

void parse_window(const std::string& text, Problem& problem) {
  const char* end = text.data() + text.size();
  const auto left = std::from_chars(text.data(), end, problem.window_left);
  const bool comma = left.ec == std::errc() && left.ptr != end && *left.ptr == ',';
  const auto right = std::from_chars(comma ? left.ptr + 1 : end, end, problem.window_right);
  if (!comma || right.ec != std::errc() || right.ptr != end || problem.window_left < -1 ||
      problem.window_right < -1) {
    throw UsageError(
        "--window: must be LEFT,RIGHT, two numbers of at least -1 (-1: unbounded), got " + text);
  }
}

}  // namespace

void apply(const VariantOptions& options, Problem& problem) {
  problem.precision = parse_precision(options.precision);
  problem.workspace_limit = options.workspace_limit;
  if (options.causal == "top_left") problem.causal = Causal::top_left;
  if (options.causal == "bottom_right") problem.causal = Causal::bottom_right;
  if (!options.window.empty()) parse_window(options.window, problem);
  if (options.scale) problem.scale = *options.scale;
  if (options.softcap) problem.softcap = *options.softcap;
}

void require_groups(const Problem& p) {
  if (p.num_heads % p.num_heads_kv == 0) return;
  throw UsageError("--heads-kv: must divide --heads, " + std::to_string(p.num_heads) + ", got " +
                   std::to_string(p.num_heads_kv));
}

std::string resolved_device(const Context& context, const std::string& device) {
  return device == "auto" ? context.devices().at(0).name : device;
}

std::string absence_reason(const Context& context, const std::string& device) {
  try {
    const Plan plan(context, {.seqlen_q = 1, .seqlen_k = 1, .head_dim = 1, .head_dim_v = 1},
                    device);
    return {};
  } catch (const Error& error) {
    const std::string message = error.what();
    const std::string before = "got " + device + ": ";
    const std::size_t at = message.find(before);
    return at == std::string::npos ? "" : message.substr(at + before.size());
  }
}

Dtype parse_dtype(const std::string& option, const std::string& name) {
  const std::optional<ingot_dtype> dtype = dtype_from_name(name);
  if (!dtype) throw UsageError(option + ": must be f32, f16, bf16 or f64, got " + name);
  return static_cast<Dtype>(*dtype);
}

nlohmann::json to_json(const Problem& p) {
  static const char* const causal[] = {"none", "top_left", "bottom_right"};
  nlohmann::json result{{"batch", p.batch},
                        {"num_heads", p.num_heads},
                        {"num_heads_kv", p.num_heads_kv},
                        {"seqlen_q", p.seqlen_q},
                        {"seqlen_k", p.seqlen_k},
                        {"head_dim", p.head_dim},
                        {"head_dim_v", p.head_dim_v},
                        {"causal", causal[static_cast<int>(p.causal)]},
                        {"window", {p.window_left, p.window_right}}};
  // The default is not a number here: it follows from head_dim.
  result["scale"] = p.scale != 0 ? static_cast<double>(p.scale)
                                 : 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  result["softcap"] = p.softcap;
  result["precision"] = p.precision == Precision::high ? "high" : "highest";
  // Parts that are on.
  if (p.alibi) result["alibi"] = true;
  if (p.mask) result["mask"] = true;
  if (p.prefix) result["prefix"] = true;
  const auto name_of = [](Dtype dtype) { return dtype_name(static_cast<ingot_dtype>(dtype)); };
  if (p.bias_dtype != Dtype::automatic) result["bias_dtype"] = name_of(p.bias_dtype);
  if (p.sinks_dtype != Dtype::automatic) result["sinks_dtype"] = name_of(p.sinks_dtype);
  if (p.dropout > 0) result["dropout"] = p.dropout;
  return result;
}

}  // namespace ingot::cli
