// The host's part of kernels/statistics.cuh.
#include "cuda/kernels/backward_params.h"
#include "cuda/launch.hpp"

namespace ingot::cuda {

void launch_statistics(const Device& device, const BackwardCall& call, std::byte* workspace,
                       const Loader& load, std::span<int> counters) {
  const Problem& p = call.problem;
  const BackwardStatistics& statistics = *call.detail.statistics;
  StatisticsParams params{};
  params.o = view_of(call.args.o, p.o);
  params.lse = view_of(call.args.lse, Dtype::f32);
  params.dout = view_of(call.args.dout, p.dout);
  params.lse_log2 = reinterpret_cast<float*>(workspace);
  params.delta = params.lse_log2 + statistics.rows;
  params.heads = p.num_heads;
  params.seqlen_q = p.seqlen_q;
  params.rows_padded = statistics.rows_padded;
  params.rows = statistics.rows;
  params.counters = counters.data();
  params.counter_count = static_cast<int>(counters.size());
  void* const arguments[] = {&params};
  device.launch(load(statistics.step), statistics.step.launch, call.stream, arguments);
}

bool launch_hopper_backward(const Device& device, const BackwardCall& call, std::byte* workspace,
                            const Loader& load) {
  if (call.detail.relay) return launch_relay(device, call, workspace, load);
  if (call.detail.stored) return launch_stored(device, call, workspace, load);
  if (call.detail.unfused) return launch_unfused(device, call, workspace, load);
  return false;
}

}  // namespace ingot::cuda
