#include "options.hpp"

#include <charconv>
#include <cmath>
#include <sstream>
#include <system_error>

#include "dtype.hpp"
#include "failure.hpp"

namespace ingot::cli {

void add_threads_option(CLI::App& app, DeviceOptions& options) {
  app.add_option("--threads", options.threads,
                 "threads of the CPU device; 0: all this process may use")
      ->check(CLI::Range(0, 4096))
      ->type_name("N");
}

void add_device_options(CLI::App& app, DeviceOptions& options) {
  app.add_option("--device", options.device,
                 "auto, or a name that `ingot devices` prints: cpu, reference, ...")
      ->type_name("NAME");
  add_threads_option(app, options);
}

void add_variant_options(CLI::App& app, VariantOptions& options) {
  app.add_option("--causal", options.causal,
                 "top_left: row i sees keys 0..i; bottom_right: the last row sees every key")
      ->check(CLI::IsMember({"none", "top_left", "bottom_right"}))
      ->type_name("KIND");
  app.add_option(
         "--window", options.window,
         "a row sees LEFT keys before and RIGHT keys after its own position; -1: all of them")
      ->type_name("LEFT,RIGHT");
  app.add_option("--scale", options.scale, "factor of q.k (default: 1 / sqrt(head_dim))")
      ->type_name("S");
  app.add_option("--softcap", options.softcap, "C: scores become C * tanh(score / C)")
      ->type_name("C");
  add_precision_option(app, options.precision);
  app.add_option("--workspace-limit", options.workspace_limit,
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

std::string number_text(float number) {
  std::ostringstream text;
  text << number;
  return text.str();
}

}  // namespace

void apply(const VariantOptions& options, Problem& problem) {
  problem.precision = parse_precision(options.precision);
  if (options.workspace_limit) {
    if (*options.workspace_limit < 1) {
      throw UsageError("--workspace-limit: must be at least 1, got " +
                       std::to_string(*options.workspace_limit));
    }
    problem.workspace_limit = *options.workspace_limit;
  }
  if (options.causal == "top_left") problem.causal = Causal::top_left;
  if (options.causal == "bottom_right") problem.causal = Causal::bottom_right;
  if (!options.window.empty()) parse_window(options.window, problem);
  if (options.scale) {
    if (*options.scale == 0 || !std::isfinite(*options.scale)) {
      throw UsageError(
          "--scale: must be a finite number other than 0 (without it: 1 / sqrt(head_dim)), got " +
          number_text(*options.scale));
    }
    problem.scale = *options.scale;
  }
  if (options.softcap) {
    if (!(*options.softcap > 0) || !std::isfinite(*options.softcap)) {
      throw UsageError("--softcap: must be a finite number above 0 (without it: no cap), got " +
                       number_text(*options.softcap));
    }
    problem.softcap = *options.softcap;
  }
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
  return result;
}

}  // namespace ingot::cli
