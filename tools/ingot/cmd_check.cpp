// ingot check: the conformance table of tests/cases.hpp on this machine.
#include <algorithm>
#include <ingot/ingot.hpp>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "commands.hpp"
#include "conformance.hpp"
#include "failure.hpp"
#include "options.hpp"
#include "terminal.hpp"
#include "text.hpp"
#include "threads.hpp"

namespace ingot::cli {
namespace {

namespace table = ingot::conformance;

struct CheckOptions {
  bool quick = false, full = false;
  std::int64_t jobs = 1;
  std::string filter, precision = "highest";
  DeviceOptions device;
};

struct Counts {
  std::size_t passed = 0, failed = 0, skipped = 0;
};

std::vector<table::Case> chosen_cases(const CheckOptions& o) {
  std::vector<table::Case> cases = table::cases(o.full);
  std::erase_if(cases,
                [&](const table::Case& c) { return c.name.find(o.filter) == std::string::npos; });
  if (cases.empty()) throw Failure("--filter: no case has '" + o.filter + "' in its name");
  if (parse_precision(o.precision) == Precision::high) {
    for (table::Case& c : cases) c.problem.precision = INGOT_PRECISION_HIGH;
  }
  return cases;
}

// Why a device that ingot knows is not here; a name it does not know is an error.
std::string absence(const Context& context, const std::string& device,
                    const std::vector<DeviceInfo>& present) {
  const std::string reason = absence_reason(context, device);
  const std::string why = reason.empty() ? "" : " (" + reason + ")";
  if (device.starts_with("cuda")) return "no NVIDIA GPU" + why;
  if (device.starts_with("metal")) return "no Apple GPU" + why;
  std::string names;
  for (const DeviceInfo& d : present) names += (names.empty() ? "" : ", ") + d.name;
  throw Failure("--device: there is no device " + device + ", this machine has " + names);
}

// "auto" is every device but the reference, which is what they are compared with.
std::vector<std::string> chosen_devices(const std::string& device,
                                        const std::vector<DeviceInfo>& present) {
  std::vector<std::string> names;
  for (const DeviceInfo& d : present) {
    const bool is_named = d.name == device || d.name == device + ":0";
    if (device == "auto" ? d.name != "reference" : is_named) names.push_back(d.name);
  }
  return names;
}

/// What came of the cases of one device; report() is called in the order of the table.
class Report {
 public:
  Report(std::string device, Progress& progress)
      : device_(std::move(device)), progress_(progress) {}

  void add(const table::Case& c, const table::Outcome& outcome) {
    switch (outcome.status) {
      case table::Status::passed:
        ++counts_.passed;
        if (outcome.worst > worst_) worst_ = outcome.worst, worst_name_ = c.name;
        break;
      case table::Status::skipped:
        ++counts_.skipped;
        ++reasons_[outcome.message];
        break;
      case table::Status::failed:
        ++counts_.failed;
        progress_.clear();
        std::cout << device_ << " failed: " << c.name << ": " << outcome.message << '\n';
    }
  }

  Counts finish(std::size_t cases) const {
    progress_.clear();
    for (const auto& [reason, count] : reasons_)
      std::cout << device_ << " skipped " << count << ": " << reason << '\n';
    std::cout << device_ << ": " << counts_.passed << " of " << cases
              << " cases within the contract";
    if (!worst_name_.empty())
      std::cout << ", largest error " << fixed(100 * worst_, 0) << " % of the allowed ("
                << worst_name_ << ')';
    std::cout << '\n';
    return counts_;
  }

 private:
  std::string device_;
  Progress& progress_;
  Counts counts_;
  std::map<std::string, std::size_t> reasons_;
  double worst_ = 0;
  std::string worst_name_;
};

/// Threads take the next case each; what they find is reported in the order of the table.
Counts check_device(const Context& context, const std::string& device,
                    const std::vector<table::Case>& cases, std::int64_t jobs) {
  Progress progress(cases.size());
  Report report(device, progress);
  std::mutex mutex;
  std::vector<std::optional<table::Outcome>> outcomes(cases.size());
  std::size_t next = 0, reported = 0;
  const auto work = [&] {
    std::unique_lock lock(mutex);
    while (next < cases.size()) {
      const std::size_t i = next++;
      progress.show(i, cases[i].name);
      lock.unlock();
      table::Outcome outcome = table::run_case(context.get(), device.c_str(), cases[i]);
      lock.lock();
      outcomes[i] = std::move(outcome);
      for (; reported < cases.size() && outcomes[reported]; ++reported)
        report.add(cases[reported], *outcomes[reported]);
    }
  };
  run_on_threads(static_cast<int>(jobs), [&](int) { work(); });
  return report.finish(cases.size());
}

int check(const CheckOptions& o) {
  const std::vector<table::Case> cases = chosen_cases(o);
  const Context context(o.device.thread_count());
  const std::vector<DeviceInfo> present = context.devices();
  const std::vector<std::string> devices = chosen_devices(o.device.device, present);
  Counts counts;
  if (devices.empty() && o.device.device != "auto") {
    const std::string why = absence(context, o.device.device, present);
    std::cout << printable(o.device.device + " skipped: " + why) << '\n';
    counts.skipped = cases.size();
  }
  for (const std::string& device : devices) {
    const Counts here = check_device(context, device, cases, o.jobs);
    counts.passed += here.passed, counts.failed += here.failed, counts.skipped += here.skipped;
  }
  std::cout << counts.passed << " passed, " << counts.failed << " failed, " << counts.skipped
            << " skipped\n";
  return counts.failed == 0 ? 0 : 1;
}

}  // namespace

void add_check(CLI::App& app, int& exit_code) {
  auto o = std::make_shared<CheckOptions>();
  CLI::App* c =
      app.add_subcommand("check", "Test every device of this machine against the reference");
  c->footer(
      "Every case runs forward and backward and is compared with device \"reference\", which "
      "computes in f64.\n"
      "Allowed is twice the error of plain attention in the same dtype plus one rounding. The last "
      "line is\n"
      "\"N passed, N failed, N skipped\"; a named device that is absent is a skip that says so.\n"
      "Examples:\n"
      "  ingot check --quick\n"
      "  ingot check --full --device cpu --filter bf16\n"
      "  ingot check --full --device cuda --jobs 16");
  auto* quick = c->add_flag("--quick", o->quick, "the quick part of the table (the default)");
  c->add_flag("--full", o->full, "the whole table, which takes minutes")->excludes(quick);
  add_integer(*c, "--jobs", o->jobs, 1, 1024,
              "cases at a time (default 1): kernels of a GPU then compile side by side");
  add_text(*c, "--filter", o->filter, "only cases with TEXT in their name")->type_name("TEXT");
  add_precision_option(*c, o->precision);
  add_device_options(*c, o->device);
  c->callback([o, &exit_code] { exit_code = check(*o); });
}

}  // namespace ingot::cli
