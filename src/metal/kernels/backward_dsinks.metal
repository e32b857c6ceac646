// dsinks = - sum of exp(sink - lse) * delta over the batch and the rows, in a fixed order.
// Threadgroups: (head).
#include "metal/kernels/backward_score.h"

using namespace ingot;

kernel void backward_dsinks(constant BackwardParams& p [[buffer(0)]],
                            const device float* delta [[buffer(7)]], INGOT_PART_BUFFERS,
                            device Config::dsinks_type* dsinks [[buffer(19)]],
                            uint3 group [[threadgroup_position_in_grid]],
                            uint thread_index [[thread_index_in_threadgroup]]) {
  constexpr int threads = 32 * Config::simdgroups;
  threadgroup float sums[threads];
  const Index head = group.x;
  float sum = 0.0f;
  for (Index b = 0; b < p.batch; ++b) {
    const HeadTerms<Config> rows = terms_of<Config>(p, delta, INGOT_PARTS_OF(p), b, head);
    const float sink = rows.parts.sink();
    if (sink == minus_infinity()) continue;
    for (Index row = thread_index; row < p.score.seqlen_q; row += threads) {
      sum -= exp2_(exponent_of(sink, rows.of(row))) * rows.delta(row);
    }
  }
  sums[thread_index] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (thread_index != 0) return;
  float total = 0.0f;
  for (int i = 0; i < threads; ++i) total += sums[i];
  dsinks[head * p.dsinks_step] = to_memory<Config::dsinks_type>(total);
}
