// delta[row] = sum of dout[row] * o[row], f32: what the softmax's gradient subtracts in every row.
// Eight threads a row.
#include "metal/kernels/backward_tile.h"

namespace ingot {

/// A thread's share of a row: packs of n columns, every eighth.
template <class Config, int n, class O, class DO>
inline float part_of_row(O o, DO dout, int row, int part) {
  float sum = 0.0f;
  for (int col = n * part; col < Config::head_dim_v; col += 8 * n) {
    Pack<typename O::Element, n> a = zero_pack<typename O::Element, n>();
    Pack<typename DO::Element, n> b = zero_pack<typename DO::Element, n>();
    if (col + n <= Config::head_dim_v) {
      a = o.template get<n>(row, col), b = dout.template get<n>(row, col);
    } else {
      a = o.template get_below<n>(row, col, Config::head_dim_v);
      b = dout.template get_below<n>(row, col, Config::head_dim_v);
    }
    INGOT_UNROLL for (int i = 0; i < n; ++i) {
      sum = metal::fma(from_memory<float>(a.of[i]), from_memory<float>(b.of[i]), sum);
    }
  }
  return sum;
}

}  // namespace ingot

using namespace ingot;

kernel void delta(constant BackwardParams& p [[buffer(0)]],
                  const device Config::o_type* o [[buffer(4)]],
                  const device Config::dout_type* dout [[buffer(6)]],
                  device float* out [[buffer(7)]], uint3 group [[threadgroup_position_in_grid]],
                  uint thread_index [[thread_index_in_threadgroup]]) {
  using O = DeviceRows<Config, const Config::o_type, Config::o_strided>;
  using DO = DeviceRows<Config, const Config::dout_type, Config::dout_strided>;
  const Index b = group.z, h = group.y;
  const Index row = Index(group.x) * Config::block_m + thread_index / 8;
  // Whole rows leave, and with them whole groups of eight that add up.
  const bool there = row < p.score.seqlen_q;
  const O o_rows = rows_of<O>(o, p.o, b, h);
  const DO dout_rows = rows_of<DO>(dout, p.dout, b, h);
  float sum = 0.0f;
  if (there) sum = part_of_row<Config, 4>(o_rows, dout_rows, int(row), int(thread_index % 8));
  sum += metal::simd_shuffle_xor(sum, 1);
  sum += metal::simd_shuffle_xor(sum, 2);
  sum += metal::simd_shuffle_xor(sum, 4);
  if (there && thread_index % 8 == 0) {
    out[b * p.delta.batch + h * p.delta.head + row * p.delta.row] = sum;
  }
}
