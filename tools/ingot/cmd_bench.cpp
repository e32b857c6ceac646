// ingot bench: how fast this machine computes attention, beside what it could do at most.
#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>

#include "atomic_file.hpp"
#include "ceiling.hpp"
#include "commands.hpp"
#include "device_counts.hpp"
#include "device_memory.hpp"
#include "environment.hpp"
#include "failure.hpp"
#include "options.hpp"
#include "parts.hpp"
#include "svg.hpp"
#include "terminal.hpp"
#include "text.hpp"
#include "workload.hpp"

namespace ingot::cli {
namespace {

using nlohmann::json;

struct BenchOptions {
  std::string filter, json_path, plot_path, precision = "highest";
  std::optional<double> seconds;
  PartOptions parts;
  DeviceOptions device;
};

struct Row {
  Workload workload;
  Spread time;

  double seconds() const { return time.median / 1e3; }
  double gflops() const { return flops(workload) / seconds() / 1e9; }
  double ginstrs() const { return instructions(workload) / seconds() / 1e9; }
  double gbps() const { return traffic_bytes(workload) / seconds() / 1e9; }
};

bool matches(const std::string& label, const std::string& filter) {
  std::istringstream words(filter);
  std::string word;
  while (words >> word) {
    if (label.find(word) == std::string::npos) return false;
  }
  return true;
}

std::vector<Workload> chosen_workloads(const BenchOptions& o, bool counting) {
  std::vector<Workload> all = counting ? counting_workloads() : standard_workloads();
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    if (counting) break;
    const std::vector<Workload> models = model_workloads(dtype);
    all.insert(all.end(), models.begin(), models.end());
  }
  std::erase_if(all, [&](const Workload& w) { return !matches(w.label, o.filter); });
  if (all.empty()) throw Failure("--filter: no benchmark has '" + o.filter + "' in its name");
  for (Workload& w : all) {
    w.problem.precision = parse_precision(o.precision);
    o.parts.apply(w.problem);
    const std::string names = part_names(w.problem);
    if (!names.empty()) w.label += " " + names, w.shape += " " + names;
  }
  return all;
}

/// What the figures are of: the processor, or the GPU and what drives it.
std::string hardware_of(const Context& context, const std::string& device) {
  for (const DeviceInfo& info : context.devices()) {
    const bool is_it = info.name == device || info.name == device + ":0";
    if (is_it && has_own_memory(device)) return info.description;
  }
  return cpu_model();
}

std::string table_text(const std::vector<Row>& rows, const std::optional<Ceilings>& ceilings) {
  TextTable table(
      {"", "median ms", "p10-p90 ms", "TFLOP/s", "GINSTRS", "of product", "GB/s", "of read"});
  for (const Row& row : rows) {
    const int digits = row.time.median < 1 ? 4 : 2;
    const auto share = [&](double value, double ceiling) {
      return ceilings ? fixed(100 * value / ceiling, 0) + " %" : std::string("-");
    };
    table.add({row.workload.label, fixed(row.time.median, digits),
               fixed(row.time.p10, digits) + "-" + fixed(row.time.p90, digits),
               fixed(row.gflops() / 1e3, 3), fixed(row.ginstrs(), 1),
               share(row.gflops(), ceilings ? ceilings->gflops : 1), fixed(row.gbps(), 2),
               share(row.gbps(), ceilings ? ceilings->read_gbps : 1)});
  }
  return table.text();
}

json row_json(const Row& row, const std::optional<Ceilings>& ceilings) {
  json result{{"name", row.workload.label},
              {"problem", to_json(row.workload.problem)},
              {"pass", row.workload.pass == INGOT_FORWARD ? "forward" : "backward"},
              {"median_ms", row.time.median},
              {"p10_ms", row.time.p10},
              {"p90_ms", row.time.p90},
              {"runs", row.time.runs},
              {"tflops", row.gflops() / 1e3},
              {"ginstrs", row.ginstrs()},
              {"gbps", row.gbps()}};
  if (!ceilings) return result;
  result["of_matrix_product"] = row.gflops() / ceilings->gflops;
  result["of_memory_read"] = row.gbps() / ceilings->read_gbps;
  return result;
}

json report_json(const std::vector<Row>& rows, const std::optional<Ceilings>& ceilings,
                 const std::string& device, int threads) {
  json results = json::array();
  for (const Row& row : rows) results.push_back(row_json(row, ceilings));
  json report{{"device", device}, {"environment", environment(threads)}, {"results", results}};
  if (ceilings) {
    report["ceilings"] = {{"matrix_product_gflops", ceilings->gflops},
                          {"memory_read_gbps", ceilings->read_gbps},
                          {"target", ceilings->target},
                          {"threads", ceilings->threads}};
  }
  return report;
}

BarChart chart_of(const std::vector<Row>& rows, const std::optional<Ceilings>& ceilings,
                  const std::string& device, const std::string& hardware) {
  BarChart chart{.title = "Attention on " + device,
                 .subtitle = hardware + ", ingot " + ingot_version() + ", " +
                             utc_date().substr(0, 10) + "; batch x heads x seqlen x head_dim",
                 .axis = "GFLOP/s (products only, causal counts half; more is better)",
                 .series = {"f32", "f16", "bf16"},
                 .groups = {},
                 .limit = ceilings ? ceilings->gflops : 0,
                 .limit_label = "f32 matrix product"};
  for (const Row& row : rows) {
    const std::string label =
        row.workload.shape + (row.workload.pass == INGOT_FORWARD ? " forward" : " backward");
    auto group = std::find_if(chart.groups.begin(), chart.groups.end(),
                              [&](const auto& g) { return g.label == label; });
    if (group == chart.groups.end()) group = chart.groups.insert(group, {label, {-1, -1, -1}});
    group->values.at(static_cast<std::size_t>(row.workload.problem.q_dtype) - 1) = row.gflops();
  }
  return chart;
}

std::vector<Row> measure_all(const Context& context, const std::vector<Workload>& workloads,
                             const std::string& device, double seconds) {
  std::vector<Row> rows;
  Progress progress(workloads.size());
  for (std::size_t i = 0; i < workloads.size(); ++i) {
    progress.show(i, workloads[i].label);
    const Plan plan(context, workloads[i].problem, device);
    rows.push_back({workloads[i], measure(plan, workloads[i], seconds, device)});
  }
  return rows;
}

/// On a device in software: what runs do, since how long they take says nothing.
void count_all(const BenchOptions& o, const Context& context, const std::string& device) {
  if (!o.plot_path.empty()) throw Failure("--plot: device " + device + " counts, it has no speed");
  if (o.seconds) throw Failure("--seconds: device " + device + " counts, it measures no time");
  OutputFiles files;
  std::optional<std::size_t> json_file;
  if (!o.json_path.empty()) json_file = files.add(o.json_path);
  const std::vector<Workload> workloads = chosen_workloads(o, true);
  std::cout << "device " << device << ", executed on a software Metal device: counts, not times\n"
            << std::flush;
  std::vector<CountedRow> rows;
  Progress progress(workloads.size());
  for (const Workload& workload : workloads) {
    progress.show(rows.size(), workload.label);
    rows.push_back(count(Plan(context, workload.problem, device), workload));
  }
  std::cout << table_text(rows);
  if (json_file) {
    const json report{{"device", device}, {"counted", true}, {"results", to_json(rows)}};
    files.write(*json_file, json_text(report));
  }
  files.commit();
}

void bench(const BenchOptions& o) {
  const Context context(o.device.thread_count());
  const std::string device = resolved_device(context, o.device.device);
  if (counts_instead_of_timing(device)) return count_all(o, context, device);
  const std::vector<Workload> workloads = chosen_workloads(o, false);
  OutputFiles files;
  std::optional<std::size_t> json_file, plot_file;
  if (!o.json_path.empty()) json_file = files.add(o.json_path);
  if (!o.plot_path.empty()) plot_file = files.add(o.plot_path);
  const Plan first(context, workloads.front().problem,
                   device);  // a wrong device fails before the measuring

  std::optional<Ceilings> ceilings;
  const std::string hardware = hardware_of(context, device);
  std::cout << "device " << device << ", " << printable(hardware) << ", ingot " << ingot_version()
            << '\n';
  if (device == "cpu") {
    ceilings = measure_ceilings(o.device.thread_count());
    std::cout << "ceilings of " << ceilings->threads << " threads (" << ceilings->target
              << "): f32 matrix product " << fixed(ceilings->gflops, 0) << " GFLOP/s, memory read "
              << fixed(ceilings->read_gbps, 1) << " GB/s\n";
  }
  std::cout << std::flush;
  const std::vector<Row> rows = measure_all(context, workloads, device, o.seconds.value_or(0.3));
  std::cout << table_text(rows, ceilings);
  const int threads = ceilings ? ceilings->threads : o.device.thread_count();
  if (json_file) files.write(*json_file, json_text(report_json(rows, ceilings, device, threads)));
  if (plot_file) files.write(*plot_file, draw(chart_of(rows, ceilings, device, hardware)));
  files.commit();
}

}  // namespace

void add_bench(CLI::App& app, int&) {
  auto o = std::make_shared<BenchOptions>();
  CLI::App* c = app.add_subcommand("bench", "Measure speed beside this machine's ceilings");
  c->footer(
      "TFLOP/s counts the matrix products, GINSTRS (2D+5) instructions a pair forward and (7D+10) "
      "backward; a causal\n"
      "mask counts half. \"of product\" and \"of read\" are shares of an f32 matrix product in the "
      "first cache and of\n"
      "a streaming read from memory, both measured in this run with as many threads.\n"
      "Device metal on softmetal (a Metal device in software) counts operations and bytes instead "
      "of "
      "timing.\n"
      "Examples:\n"
      "  ingot bench --filter 'f32 backward' --plot speed.svg\n"
      "  ingot bench --filter decode --json decode.json\n"
      "  ingot bench --filter '1x8x2048x64 f32' --bias f32 --dropout 0.1");
  add_text(*c, "--filter", o->filter, "only benchmarks with all of these words in their name")
      ->type_name("WORDS");
  add_seconds(*c, o->seconds, "time for each benchmark (default 0.3)");
  add_text(*c, "--json", o->json_path, "write all figures and the environment")
      ->type_name("OUT.json");
  add_text(*c, "--plot", o->plot_path, "write a chart")->type_name("OUT.svg");
  add_precision_option(*c, o->precision);
  add_part_options(*c, o->parts);
  add_device_options(*c, o->device);
  c->callback([o] { bench(*o); });
}

}  // namespace ingot::cli
