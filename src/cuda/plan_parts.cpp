#include "cuda/plan_parts.hpp"

#include <climits>

#include "core/error.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t most_blocks = INT_MAX;  // of a grid

}  // namespace

ScoreParams score_of(const Problem& p) {
  return make_score_params(p.scale, p.softcap, p.seqlen_q, p.seqlen_k, static_cast<int>(p.causal),
                           p.window_left, p.window_right);
}

Step make_step(const Config& config, const Needs& needs, std::int64_t blocks) {
  if (blocks > most_blocks) {
    throw Error(Code::unsupported, "unsupported: " + text(blocks) +
                                       " blocks of work: a grid takes at most " +
                                       text(most_blocks));
  }
  Step step;
  step.config = config;
  step.kernel.file = "cuda/kernels/" + std::string(config.kernel) + ".cuh";
  step.kernel.config = literals_of(config);
  step.kernel.grid = {blocks, 1, 1};
  step.kernel.threads = needs.threads;
  step.kernel.shared_bytes = needs.shared_bytes;
  step.launch = {step.kernel.grid, needs.threads, needs.shared_bytes, config.cluster, false};
  return step;
}

Product plan_product(const Problem& p, std::int64_t dim, Dtype output, bool by_keys,
                     std::int64_t planes) {
  const Config config = choose_product(p, dim, output, by_keys, planes);
  Product product{make_step(config, needs_product(config), 1), dim, 1};
  product.slices = ceil_div(dim, config.columns);
  return product;
}

ingot::Config summary_of(const Step& step, std::int64_t splits) {
  ingot::Config summary;
  summary.kernel = step.config.kernel;
  summary.target = step.config.arch;
  summary.head_dim = step.config.head_dim;
  summary.head_dim_v = step.config.head_dim_v;
  summary.block_m = step.config.block_m;
  summary.block_n = step.config.block_n;
  summary.split_k = splits;
  summary.masked = step.config.masked;
  summary.softcap = step.config.softcap;
  return summary;
}

std::string tile_sentence(const Config& c) {
  return text(c.block_m) + " query rows by " + text(c.block_n) + " keys, " + text(c.stages) +
         " stages";
}

}  // namespace ingot::cuda
