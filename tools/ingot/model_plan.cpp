#include "model_plan.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "failure.hpp"

namespace ingot::cli {
namespace {

using Json = nlohmann::ordered_json;

const Json& find_kernel(const Json& plan, Kernel kernel) {
  const char* pass = kernel == Kernel::forward ? "forward" : "backward";
  const std::string wanted = kernel == Kernel::forward ? ""
                             : kernel == Kernel::dq    ? "backward_dq"
                                                       : "backward_dkv";
  if (plan.at(pass).contains("kernels")) {
    for (const Json& candidate : plan.at(pass).at("kernels")) {
      if (wanted.empty() || candidate.at("config").at("kernel") == wanted) return candidate;
    }
  }
  throw Failure("model: the plan of device " + plan.at("device").get<std::string>() +
                " has no kernel for pass " + name(kernel));
}

double bytes_of(const Json& config, const char* type) { return config.at(type) == "float" ? 4 : 2; }

double tiles(double columns) { return std::ceil(columns / 8); }

// What is stationary in registers or not: Q in forward; Q and dO in dQ; K and V in dK/dV.
struct LeftHand {
  double columns = 0, cached_columns = 0, from_threadgroup = 0;
};

LeftHand left_hand(const Json& config, const KernelProblem& p) {
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.head_dim_v);
  const bool cached = config.at("cache_lhs").get<bool>();
  if (p.kernel == Kernel::forward) {
    // Where simdgroups share rows, a cached Q is in threadgroup memory.
    const bool shared = config.at("kernel").get<std::string>().ends_with("_wide");
    if (!cached) return {d, 0, 0};
    return shared ? LeftHand{0, 0, d} : LeftHand{0, d, 0};
  }
  const bool cached_v = config.at("cache_dout").get<bool>();
  return {(cached ? 0 : d) + (cached_v ? 0 : dv), (cached ? d : 0) + (cached_v ? dv : 0), 0};
}

// 32-bit registers times four, of the arrays that a simdgroup's thread holds.
double register_bytes(const Json& config, const KernelProblem& p, const KernelShape& s,
                      double cached_columns) {
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.head_dim_v);
  const double results = p.kernel == Kernel::forward ? dv : (p.kernel == Kernel::dq ? d : d + dv);
  const double scores = p.kernel == Kernel::forward ? 1 : 2;
  const double element = bytes_of(config, "qk_reg");
  const double own_columns = results / s.column_splits * 4 +
                             scores * s.block_n / s.column_splits * 4 + cached_columns * element;
  const double panel = config.at("panel").get<double>() * 8 * element;
  return (s.rows_per_simdgroup * (own_columns + panel) + 8 * panel) / 32;
}

}  // namespace

KernelShape planned_shape(const Json& plan, const KernelProblem& p) {
  const Json& kernel = find_kernel(plan, p.kernel);
  const Json& config = kernel.at("config");
  const double d = 8 * tiles(static_cast<double>(p.head_dim));
  const double dv = 8 * tiles(static_cast<double>(p.head_dim_v));
  KernelShape s;
  s.block_m = config.at("block_m").get<int>();
  s.block_n = config.at("block_n").get<int>();
  s.rows_per_simdgroup = config.at("rows_per_simdgroup").get<int>();
  s.simdgroups = config.at("simdgroups").get<int>();
  s.column_splits = std::max(1, s.simdgroups * s.rows_per_simdgroup / s.block_m);
  if (s.column_splits > 1 && p.kernel != Kernel::forward && config.at("stage_rhs").get<bool>()) {
    s.result_width = config.at("block_dv").get<int>();
  }
  s.wide_operands = config.at("qk_reg") == "float";
  s.whole_steps = true;
  s.rhs_memory = p.kernel == Kernel::forward ? d + dv
                 : p.kernel == Kernel::dq    ? 2 * d + dv
                                             : 2 * d + 2 * dv;
  const LeftHand left = left_hand(config, p);
  s.lhs_memory = left.columns;
  const double own_tiles = s.block_n / 8.0 / s.column_splits;
  s.lhs_tiles = tiles(left.columns + left.from_threadgroup) / own_tiles;
  if (s.column_splits > 1) {
    double element =
        p.kernel == Kernel::forward ? bytes_of(config, "pv_reg") : bytes_of(config, "ds_reg");
    if (p.kernel == Kernel::dkv) element += bytes_of(config, "pv_reg");
    s.exchanged_bytes = (1 + s.column_splits) * element;
  }
  s.register_bytes = static_cast<int>(register_bytes(config, p, s, left.cached_columns));
  s.shared_bytes = kernel.at("shared_bytes").get<int>();
  s.label = "ingot " + std::to_string(s.block_m) + "x" + std::to_string(s.block_n) + "/" +
            std::to_string(s.rows_per_simdgroup);
  if (s.column_splits > 1) s.label += "/" + std::to_string(s.column_splits);
  return s;
}

}  // namespace ingot::cli
