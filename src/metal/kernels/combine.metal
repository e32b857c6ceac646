// Puts the partial results of the splits of a row together, in their order: o = sum of w[s] o[s] /
// sum of w[s], w[s] = sum[s] * exp2(factor_log2 * (max[s] - max)). A split that saw no key has
// max -inf and weighs nothing. Threadgroups: (query row, head, batch).
#include "metal/kernels/attend.h"

namespace ingot {

/// Of a split, given its maximum and sum.
inline float weight_of(const device float* sums, float highest, float factor_log2) {
  return sums[1] * exp2_((sums[0] - highest) * factor_log2);
}

template <class Config>
inline void combine(CombineParams p, device typename Config::o_type* o, device float* lse,
                    const device float* partial_o, const device float* partial_sums, uint3 group,
                    int index) {
  using T = typename Config::o_type;
  const Index row = group.x, head = group.y, batch = group.z;
  const Index first = ((batch * p.num_heads + head) * p.seqlen_q + row) * p.splits;
  const device float* sums = partial_sums + 2 * first;
  const float factor_log2 = p.factor * log2_e;
  float highest = minus_infinity();
  for (int s = 0; s < p.splits; ++s) highest = max_(highest, sums[2 * s]);
  highest = finite_or_(highest, 0.0f);
  float total = 0;
  for (int s = 0; s < p.splits; ++s) total += weight_of(sums + 2 * s, highest, factor_log2);
  const float factor = total == 0.0f ? 0.0f : 1.0f / total;

  device T* out = o + batch * p.o.batch + head * p.o.head + row * p.o.row;
  for (int col = index; col < Config::head_dim_v; col += 32 * Config::simdgroups) {
    float sum = 0;
    for (int s = 0; s < p.splits; ++s) {
      const float weight = weight_of(sums + 2 * s, highest, factor_log2);
      const float x = partial_o[(first + s) * Config::head_dim_v + col];
      sum += weight == 0.0f ? 0.0f : weight * x;
    }
    out[col * p.o.col] = to_memory<T>(sum * factor);
  }
  if (Config::has_lse && index == 0) {
    lse[batch * p.lse.batch + head * p.lse.head + row * p.lse.row] =
        lse_of(highest, total, p.factor);
  }
}

}  // namespace ingot

kernel void combine(constant ingot::CombineParams& params [[buffer(0)]],
                    device Config::o_type* o [[buffer(4)]], device float* lse [[buffer(5)]],
                    const device float* partial_o [[buffer(11)]],
                    const device float* partial_sums [[buffer(12)]],
                    uint3 group [[threadgroup_position_in_grid]],
                    ushort index [[thread_index_in_threadgroup]]) {
  ingot::combine<Config>(params, o, lse, partial_o, partial_sums, group, index);
}
