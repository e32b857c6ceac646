// Puts the partial results of the splits of a row together, in their order: o = sum of
// exp2(lse[s] - max) o[s] / sum of exp2(lse[s] - max). A split that saw no key has lse -inf and
// weighs nothing. Threadgroups: (query row, head, batch).
#include "metal/kernels/attend.h"

namespace ingot {

template <class Config>
inline void combine(CombineParams p, device typename Config::o_type* o, device float* lse,
                    const device float* partial_o, const device float* partial_lse, uint3 group,
                    int index) {
  using T = typename Config::o_type;
  const Index row = group.x, head = group.y, batch = group.z;
  const Index first = ((batch * p.num_heads + head) * p.seqlen_q + row) * p.splits;
  float highest = minus_infinity();
  for (int s = 0; s < p.splits; ++s) highest = max_(highest, partial_lse[first + s]);
  const float offset = finite_or_(highest, 0.0f);
  float total = 0;
  for (int s = 0; s < p.splits; ++s) total += exp2_(partial_lse[first + s] - offset);
  const float factor = total == 0.0f ? 0.0f : 1.0f / total;

  device T* out = o + batch * p.o.batch + head * p.o.head + row * p.o.row;
  for (int col = index; col < Config::head_dim_v; col += 32 * Config::simdgroups) {
    float sum = 0;
    for (int s = 0; s < p.splits; ++s) {
      const float weight = exp2_(partial_lse[first + s] - offset);
      const float x = partial_o[(first + s) * Config::head_dim_v + col];
      sum += weight == 0.0f ? 0.0f : weight * x;
    }
    out[col * p.o.col] = to_memory<T>(sum * factor);
  }
  if (Config::has_lse && index == 0) {
    lse[batch * p.lse.batch + head * p.lse.head + row * p.lse.row] =
        (highest + log2_(total)) * 0.69314718055994530942f;
  }
}

}  // namespace ingot

kernel void combine(constant ingot::CombineParams& params [[buffer(0)]],
                    device Config::o_type* o [[buffer(4)]], device float* lse [[buffer(5)]],
                    const device float* partial_o [[buffer(11)]],
                    const device float* partial_lse [[buffer(12)]],
                    uint3 group [[threadgroup_position_in_grid]],
                    ushort index [[thread_index_in_threadgroup]]) {
  ingot::combine<Config>(params, o, lse, partial_o, partial_lse, group, index);
}
