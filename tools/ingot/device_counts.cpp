#include "device_counts.hpp"

#include <dlfcn.h>

#include "failure.hpp"
#include "softmetal/softmetal.h"
#include "terminal.hpp"
#include "views.hpp"

namespace ingot::cli {
namespace {

/// softmetal's functions, looked up in this process: a build without it has none.
template <class F>
F* softmetal_function(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

softmetal_counters read_counters() {
  softmetal_counters counters{};
  counters.struct_size = sizeof counters;
  const auto get = softmetal_function<decltype(softmetal_get_counters)>("softmetal_get_counters");
  if (get(nullptr, &counters) != 0) throw Failure("softmetal: counted no dispatch");
  return counters;
}

double share(std::uint64_t part, double whole) {
  return whole > 0 ? static_cast<double>(part) / whole : 0;
}

}  // namespace

bool counts_instead_of_timing(const std::string& device) {
  return device.rfind("metal", 0) == 0 &&
         softmetal_function<decltype(softmetal_get_counters)>("softmetal_get_counters") != nullptr;
}

double least_matrix_operations(const Workload& w) {
  const Problem& p = w.problem;
  const double products = w.pass == INGOT_FORWARD
                              ? static_cast<double>(p.head_dim + p.head_dim_v)
                              : static_cast<double>(4 * p.head_dim + 3 * p.head_dim_v);
  return flops({.label = {}, .shape = {}, .problem = p, .pass = INGOT_FORWARD}) /
         (2.0 * static_cast<double>(p.head_dim + p.head_dim_v)) * products / 512;
}

CountedRow count(const Plan& plan, const Workload& workload) {
  Operands operands(workload);
  if (workload.pass == INGOT_BACKWARD) operands.run(plan, INGOT_FORWARD);
  softmetal_function<decltype(softmetal_reset_counters)>("softmetal_reset_counters")();
  operands.run(plan, workload.pass);
  const softmetal_counters c = read_counters();
  return {workload,
          {.dispatches = c.dispatches,
           .threadgroups = c.threadgroups,
           .matrix_operations = c.matrix_operations,
           .barriers = c.barriers,
           .simd_operations = c.simd_operations,
           .special_operations = c.special_operations,
           .device_bytes_read = c.device_bytes_read,
           .device_bytes_written = c.device_bytes_written,
           .threadgroup_bytes = c.threadgroup_bytes_read + c.threadgroup_bytes_written}};
}

std::vector<Workload> counting_workloads() {
  constexpr std::int64_t seqlen = 256;
  std::vector<Workload> all;
  for (Workload w : standard_workloads()) {
    const Problem& p = w.problem;
    const bool square = p.seqlen_q == 2048 && p.seqlen_k == 2048;
    if (!square || p.q_dtype == Dtype::bf16) continue;
    w.problem.num_heads = w.problem.num_heads_kv = 1;
    w.problem.seqlen_q = w.problem.seqlen_k = seqlen;
    const std::string shape = "1x1x256x";
    const auto rename = [&](std::string& label) {
      label.replace(0, std::string("1x8x2048x").size(), shape);
    };
    rename(w.label);
    rename(w.shape);
    all.push_back(w);
  }
  return all;
}

std::string table_text(const std::vector<CountedRow>& rows) {
  TextTable table({"", "matrix op", "of least", "device B/op", "written B/op", "threadgroup B/op",
                   "simd/op", "special/op", "barriers", "threadgroups"});
  for (const auto& [workload, c] : rows) {
    const auto operations = static_cast<double>(c.matrix_operations);
    const bool bytes = c.device_bytes_read > 0;
    const auto per_operation = [&](std::uint64_t value, int digits) {
      return bytes ? fixed(share(value, operations), digits) : std::string("-");
    };
    table.add({workload.label, std::to_string(c.matrix_operations),
               fixed(share(c.matrix_operations, least_matrix_operations(workload)), 2),
               per_operation(c.device_bytes_read, 1), per_operation(c.device_bytes_written, 1),
               per_operation(c.threadgroup_bytes, 1),
               fixed(share(c.simd_operations, operations), 3),
               per_operation(c.special_operations, 2), std::to_string(c.barriers),
               std::to_string(c.threadgroups)});
  }
  return table.text();
}

nlohmann::json to_json(const std::vector<CountedRow>& rows) {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& [workload, c] : rows) {
    all.push_back({{"name", workload.label},
                   {"pass", workload.pass == INGOT_FORWARD ? "forward" : "backward"},
                   {"dispatches", c.dispatches},
                   {"threadgroups", c.threadgroups},
                   {"matrix_operations", c.matrix_operations},
                   {"least_matrix_operations", least_matrix_operations(workload)},
                   {"barriers", c.barriers},
                   {"simd_operations", c.simd_operations},
                   {"special_operations", c.special_operations},
                   {"device_bytes_read", c.device_bytes_read},
                   {"device_bytes_written", c.device_bytes_written},
                   {"threadgroup_bytes", c.threadgroup_bytes}});
  }
  return all;
}

}  // namespace ingot::cli
