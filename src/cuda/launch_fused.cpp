// The host's part of the fused backward pass: statistics, then backward_fused_sm90 for groups of
// heads.
#include <algorithm>
#include <optional>

#include "cuda/kernels/backward_params.h"
#include "cuda/launch_product.hpp"
#include "cuda/tuning.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t query_tile = 64;

struct Maps {
  TensorMap q, k, v, dout;
};

std::optional<Maps> encode_maps(const Driver& driver, const BackwardCall& call) {
  const Problem& p = call.problem;
  const BackwardArgs& args = call.args;
  const Config& config = call.detail.fused->step.config;
  const auto map = [&](const ConstTensor& t, bool of_keys, std::int64_t dim) {
    return encode(driver, tensor_spec(t, p.q, p.batch, of_keys ? p.num_heads_kv : p.num_heads,
                                      of_keys ? p.seqlen_k : p.seqlen_q, dim,
                                      of_keys ? config.block_n : config.block_m));
  };
  const auto q = map(args.q, false, p.head_dim), k = map(args.k, true, p.head_dim);
  const auto v = map(args.v, true, p.head_dim_v), dout = map(args.dout, false, p.head_dim_v);
  if (!q || !k || !v || !dout) return std::nullopt;
  return Maps{*q, *k, *v, *dout};
}

OutputView output_of(const Tensor& t, Dtype dtype) {
  OutputView view{};
  view.data = t.data;
  std::copy_n(t.stride.begin(), 4, view.stride);
  view.vector = store_width(t, dtype);
  return view;
}

/// Under a mask the blocks with many queries come first: those of the last keys where keys see
/// queries before them only.
bool last_keys_are_longest(const ScoreParams& score) {
  return score.band_right >= score.seqlen_k - 1 && score.band_left > 1 - score.seqlen_q;
}

FusedParams params_of(const BackwardCall& call, std::byte* workspace) {
  const Problem& p = call.problem;
  const FusedBackward& form = *call.detail.fused;
  const BackwardStatistics& statistics = *call.detail.statistics;
  std::byte* const behind =
      workspace + round_up(static_cast<std::int64_t>(statistics.bytes), workspace_alignment);
  FusedParams params{};
  params.score = call.detail.score;
  params.dq = output_of(call.args.dq, p.dq);
  params.dk = output_of(call.args.dk, p.dk);
  params.dv = output_of(call.args.dv, p.dv);
  params.lse_log2 = reinterpret_cast<const float*>(workspace);
  params.delta = params.lse_log2 + statistics.rows;
  params.turns = reinterpret_cast<int*>(behind);
  params.sums = reinterpret_cast<float*>(behind + form.turns_bytes);
  params.num_heads = static_cast<int>(p.num_heads);
  params.num_heads_kv = static_cast<int>(p.num_heads_kv);
  params.group = static_cast<int>(p.num_heads / p.num_heads_kv);
  params.heads_at_once = static_cast<int>(form.heads_in_turn);
  params.key_blocks = static_cast<int>(form.key_blocks);
  params.query_blocks = static_cast<int>(statistics.rows_padded / query_tile);
  params.last_first = last_keys_are_longest(params.score) ? 1 : 0;
  return params;
}

}  // namespace

bool launch_fused(const Device& device, const BackwardCall& call, std::byte* workspace,
                  const Loader& load) {
  std::optional<Maps> maps = encode_maps(device.driver(), call);
  if (!maps) return false;
  const FusedBackward& form = *call.detail.fused;
  FusedParams params = params_of(call, workspace);
  params.faults = device.faults().words();
  launch_statistics(device, call, workspace, load, params.turns);
  const std::int64_t heads = call.problem.batch * call.problem.num_heads_kv;
  for (std::int64_t head = 0; head < heads; head += form.heads_kv_at_once) {
    params.head_first = static_cast<int>(head);
    params.heads = static_cast<int>(std::min(form.heads_kv_at_once, heads - head));
    Launch launch = form.step.launch;
    launch.grid[0] = form.key_blocks * params.heads;
    void* const arguments[] = {&params, &maps->q, &maps->k, &maps->v, &maps->dout};
    device.launch(load(form.step), launch, call.stream, arguments);
  }
  return true;
}

}  // namespace ingot::cuda
