// Options that several commands share: the device, and the variant of attention.
#pragma once

#include <CLI/CLI.hpp>
#include <ingot/ingot.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace ingot::cli {

/// A text that is not empty. As every option, wrong usage is a line that starts with its name.
CLI::Option* add_text(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help);

/// A whole number, in decimal, from `low` to `high`; messages quote what was typed.
CLI::Option* add_integer(CLI::App& app, const std::string& name, std::int64_t& value,
                         std::int64_t low, std::int64_t high, const std::string& help);

/// The largest size of a problem that the library takes.
constexpr std::int64_t max_size = std::int64_t{1} << 40;

/// The number that a text is. Throw UsageError where it is none, or another than typed.
std::int64_t parse_integer(const std::string& option, const std::string& text, std::int64_t low,
                           std::int64_t high);
double parse_number(const std::string& option, const std::string& text);

/// A time to measure, 0 to 3600 seconds.
CLI::Option* add_seconds(CLI::App& app, std::optional<double>& value, const std::string& help);

struct DeviceOptions {
  std::string device = "auto";
  std::int64_t threads = 0;

  int thread_count() const { return static_cast<int>(threads); }
};

struct VariantOptions {
  std::string causal = "none";
  std::string window;  ///< empty, or "LEFT,RIGHT"
  std::optional<float> scale;
  std::optional<float> softcap;
  std::string precision = "highest";
  std::int64_t workspace_limit = 0;  ///< 0: the library's
};

void add_device_options(CLI::App& app, DeviceOptions& options);
void add_threads_option(CLI::App& app, DeviceOptions& options);
void add_variant_options(CLI::App& app, VariantOptions& options);

void add_precision_option(CLI::App& app, std::string& precision);

/// The value of --precision, which the option has checked.
Precision parse_precision(const std::string& name);

/// Puts the variant into the problem. Throws UsageError where the window is none.
void apply(const VariantOptions& options, Problem& problem);

/// Throws UsageError where --heads-kv does not divide --heads.
void require_groups(const Problem& problem);

/// The device "auto" stands for; any other name as it is.
std::string resolved_device(const Context& context, const std::string& device);

/// Why a device that ingot knows is not on this machine: "no NVIDIA GPU". "" where it is there, or
/// ingot knows no such name.
std::string absence_reason(const Context& context, const std::string& device);

/// The value of --out-dtype and --dtype.
Dtype parse_dtype(const std::string& option, const std::string& name);

nlohmann::json to_json(const Problem& problem);

}  // namespace ingot::cli
