// Options that several commands share: the device, and the variant of attention.
#pragma once

#include <CLI/CLI.hpp>
#include <ingot/ingot.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace ingot::cli {

struct DeviceOptions {
  std::string device = "auto";
  int threads = 0;
};

struct VariantOptions {
  std::string causal = "none";
  std::string window;  ///< empty, or "LEFT,RIGHT"
  std::optional<float> scale;
  std::optional<float> softcap;
  std::string precision = "highest";
  std::optional<std::int64_t> workspace_limit;
};

void add_device_options(CLI::App& app, DeviceOptions& options);
void add_threads_option(CLI::App& app, DeviceOptions& options);
void add_variant_options(CLI::App& app, VariantOptions& options);

void add_precision_option(CLI::App& app, std::string& precision);

/// The value of --precision, which the option has checked.
Precision parse_precision(const std::string& name);

/// Puts the variant into the problem. Throws UsageError for values that cannot be meant, such as
/// --scale 0.
void apply(const VariantOptions& options, Problem& problem);

/// The device "auto" stands for; any other name as it is.
std::string resolved_device(const Context& context, const std::string& device);

/// Why a device that ingot knows is not on this machine: "no NVIDIA GPU". "" where it is there, or
/// ingot knows no such name.
std::string absence_reason(const Context& context, const std::string& device);

/// The value of --out-dtype and --dtype.
Dtype parse_dtype(const std::string& option, const std::string& name);

nlohmann::json to_json(const Problem& problem);

}  // namespace ingot::cli
