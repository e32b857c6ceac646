// The host's part of kernels/statistics.cuh.
#include "cuda/kernels/backward_params.h"
#include "cuda/launch.hpp"

namespace ingot::cuda {

void launch_statistics(const Device& device, const BackwardCall& call, std::byte* workspace,
                       const Loader& load, int* turns) {
  const Problem& p = call.problem;
  const BackwardStatistics& statistics = *call.detail.statistics;
  StatisticsParams params{};
  params.q = view_of(call.args.q, p.q);
  params.k = view_of(call.args.k, p.k);
  params.o = view_of(call.args.o, p.o);
  params.lse = view_of(call.args.lse, Dtype::f32);
  params.dout = view_of(call.args.dout, p.dout);
  params.lse_log2 = reinterpret_cast<float*>(workspace);
  params.delta = params.lse_log2 + statistics.rows;
  params.score = call.detail.score;
  params.heads = p.num_heads;
  params.group = p.num_heads / p.num_heads_kv;
  params.rows_padded = statistics.rows_padded;
  params.rows = statistics.rows;
  params.turns = turns;
  void* const arguments[] = {&params};
  device.launch(load(statistics.step), statistics.step.launch, call.stream, arguments);
}

bool launch_hopper_backward(const Device& device, const BackwardCall& call, std::byte* workspace,
                            const Loader& load) {
  if (call.detail.fused) return launch_fused(device, call, workspace, load);
  if (call.detail.stored) return launch_stored(device, call, workspace, load);
  if (call.detail.unfused) return launch_unfused(device, call, workspace, load);
  return false;
}

}  // namespace ingot::cuda
