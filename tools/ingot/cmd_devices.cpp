// ingot devices: what this machine has.
#include <ingot/ingot.hpp>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "options.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

struct DevicesOptions {
  bool json = false;
  DeviceOptions device;
};

void print_devices(const DevicesOptions& options) {
  const Context context(options.device.thread_count());
  nlohmann::json list = nlohmann::json::array();
  for (const DeviceInfo& device : context.devices()) {
    list.push_back({{"name", device.name}, {"description", device.description}});
    if (!options.json) {
      std::cout << std::left << std::setw(12) << device.name << printable(device.description)
                << '\n';
    }
  }
  const std::string no_cuda = absence_reason(context, "cuda");
  if (!options.json && !no_cuda.empty()) {
    std::cout << "no device cuda: " << printable(no_cuda) << '\n';
  }
  nlohmann::json report{{"devices", list}};
  if (!no_cuda.empty()) report["absent"] = {{"cuda", no_cuda}};
  if (options.json) std::cout << json_text(report);
}

}  // namespace

void add_devices(CLI::App& app, int&) {
  auto options = std::make_shared<DevicesOptions>();
  CLI::App* command =
      app.add_subcommand("devices", "List the devices of this machine, preferred first");
  command->footer(
      "`--device auto` means the first one. Device \"reference\" computes in f64, slowly.");
  command->add_flag("--json", options->json, "print JSON");
  add_threads_option(*command, options->device);
  command->callback([options] { print_devices(*options); });
}

}  // namespace ingot::cli
