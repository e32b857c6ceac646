#include "metal/metal_plan.hpp"

#include <algorithm>
#include <utility>

#include "algorithm/score.h"
#include "core/error.hpp"
#include "metal/metal_program.hpp"
#include "metal/tuning.hpp"
#include "metal/tuning_backward.hpp"

namespace ingot::metal {
namespace {

constexpr std::size_t alignment = 256;  // of what lies in the workspace

std::size_t round_up(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

bool has(const Problem& p, Dtype dtype) {
  const Parts& parts = p.parts;
  const Dtype dtypes[] = {p.q, p.k, p.v, p.o, p.dout, p.dq, p.dk, p.dv};
  return std::ranges::find(dtypes, dtype) != std::end(dtypes) ||
         (parts.bias && (parts.bias_dtype == dtype || parts.dbias_dtype == dtype)) ||
         (parts.sinks && (parts.sinks_dtype == dtype || parts.dsinks_dtype == dtype));
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(Code::unsupported, "unsupported: " + what);
}

void refuse_unsupported(const Problem& p, const DeviceCaps& caps, const std::string& device_name) {
  const std::string system = "macOS " + std::to_string(caps.os_major);
  if (caps.os_major < oldest_macos) {
    refuse(system + ": device " + device_name + " needs macOS " + std::to_string(oldest_macos) +
           " or newer");
  }
  if (has(p, Dtype::f64)) {
    refuse("dtype f64: device " + device_name +
           " computes f32, f16 and bf16; device reference does f64");
  }
  const bool native = memory_type(Dtype::bf16, caps.family).name == "bfloat";
  if (native && caps.os_major < macos_of_bfloat && has(p, Dtype::bf16)) {
    refuse("dtype bf16: device " + device_name + " has it from macOS " +
           std::to_string(macos_of_bfloat) + " on, this is " + system);
  }
}

KernelPlan describe(const Launch& launch) {
  KernelPlan kernel;
  kernel.file = kernel_path(launch.config);
  kernel.config = literals_of(launch.config);
  kernel.grid = launch.grid;
  kernel.threads = launch.threads;
  kernel.shared_bytes = launch.threadgroup_bytes;
  return kernel;
}

/// The part of a pass that `ingot explain` shows for every back end.
ingot::Config summary_of(const Config& config, std::int64_t splits) {
  ingot::Config summary;
  summary.kernel = config.kernel;
  summary.target = config.family;
  summary.head_dim = config.head_dim;
  summary.head_dim_v = config.head_dim_v;
  summary.block_m = config.block_m;
  summary.block_n = config.block_n;
  summary.split_k = splits;
  summary.masked = config.masked;
  summary.softcap = config.softcap;
  return summary;
}

std::int64_t units_of(const Launch& launch) {
  return launch.grid[0] * launch.grid[1] * launch.grid[2];
}

PassPlan plan_forward(const Problem& problem, const DeviceCaps& caps) {
  ForwardChoice choice = choose_forward(problem, caps);
  auto detail = std::make_shared<ForwardDetail>();
  detail->main = {choice.config, choice.grid, choice.threads, choice.threadgroup_bytes};
  detail->splits = choice.splits;
  detail->split_length = choice.split_length;
  detail->row_blocks = choice.row_blocks;

  PassPlan pass;
  pass.config = summary_of(choice.config, choice.splits);
  pass.units = units_of(detail->main);
  pass.why = std::move(choice.why);
  pass.kernels.push_back(describe(detail->main));
  if (choice.splits > 1) {
    const std::int64_t rows = problem.batch * problem.num_heads * problem.seqlen_q * choice.splits;
    detail->combine = {choice.combine, choice.combine_grid, choice.combine_threads, 0};
    detail->partial_sums_at = round_up(floats(rows * problem.head_dim_v));
    pass.workspace_bytes = detail->partial_sums_at + floats(2 * rows);
    pass.kernels.push_back(describe(*detail->combine));
  }
  pass.detail = std::move(detail);
  return pass;
}

Launch launch_of(const BackwardKernel& kernel) {
  return {kernel.config, kernel.grid, kernel.threads, kernel.threadgroup_bytes};
}

PassPlan plan_backward(const Problem& problem, const DeviceCaps& caps) {
  BackwardChoice choice = choose_backward(problem, caps);
  auto detail = std::make_shared<BackwardDetail>();
  detail->delta = launch_of(choice.delta);
  detail->dq = launch_of(choice.dq);
  detail->dkv = launch_of(choice.dkv);
  if (choice.dbias) detail->dbias = launch_of(*choice.dbias);
  if (choice.dsinks) detail->dsinks = launch_of(*choice.dsinks);

  PassPlan pass;
  pass.config = summary_of(choice.dkv.config, 1);
  pass.units = units_of(detail->dq) + units_of(detail->dkv);
  pass.workspace_bytes = floats(3 * problem.batch * problem.num_heads * problem.seqlen_q);
  pass.why = std::move(choice.why);
  for (const Launch* launch : {&detail->delta, &detail->dq, &detail->dkv}) {
    pass.kernels.push_back(describe(*launch));
  }
  for (const std::optional<Launch>* launch : {&detail->dbias, &detail->dsinks}) {
    if (launch->has_value()) pass.kernels.push_back(describe(**launch));
  }
  pass.detail = std::move(detail);
  return pass;
}

}  // namespace

Plan plan_metal(const Problem& problem, const DeviceCaps& caps, const std::string& device_name) {
  refuse_unsupported(problem, caps, device_name);
  Plan plan;
  plan.problem = problem;
  plan.device = device_name;
  plan.forward = plan_forward(problem, caps);
  plan.backward = plan_backward(problem, caps);
  return plan;
}

}  // namespace ingot::metal
