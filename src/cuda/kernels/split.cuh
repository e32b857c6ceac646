// f32 numbers as sums of bf16 terms, the largest first: what a term leaves out is exact in f32, so
// three terms hold all 24 bits.
#include "cuda/kernels/dialect.h"
#include "cuda/kernels/params.h"

extern "C" __global__ void __launch_bounds__(256)
    ingot_kernel(const __grid_constant__ ingot::SplitParams params) {
  using namespace ingot;
  if (params.from == nullptr) {
    if (threadIdx.x == 0) *params.has_special = 0;
    return;
  }
  constexpr int width = 8;  // columns of a thread, 16 bytes of a plane
  constexpr float largest_term = __builtin_bit_cast(float, 0x7F7F8000);  // rounds to an Inf of bf16
  const int chunks = params.dim_padded / width;
  const Index place = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  const Index row = place / chunks;
  if (row >= params.rows) return;
  const int column = static_cast<int>(place - row * chunks) * width;
  const Index head = row / params.seqlen, head_total = head + params.head_first;
  const Index batch = head_total / params.num_heads;
  const float* from = params.from + batch * params.stride[0] +
                      (head_total - batch * params.num_heads) * params.stride[1] +
                      (row - head * params.seqlen) * params.stride[2];
  float x[width];
  bool special = false;
#pragma unroll
  for (int i = 0; i < width; ++i) {
    x[i] = column + i < params.dim ? from[(column + i) * params.stride[3]] : 0.0f;
    special = special || !(fabsf(x[i]) < largest_term);
  }
  if (special) *params.has_special = 1;
  u32* to = static_cast<u32*>(params.to) + (row * params.dim_padded + column) / 2;
  for (int plane = 0; plane < Config::planes; ++plane, to += params.plane / 2) {
    u32 term[width / 2];
#pragma unroll
    for (int i = 0; i < width / 2; ++i) {
      term[i] = pack<bf16>(x[2 * i], x[2 * i + 1]);
      x[2 * i] -= low_of<bf16>(term[i]);
      x[2 * i + 1] -= high_of<bf16>(term[i]);
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(term[0], term[1], term[2], term[3]);
  }
}
