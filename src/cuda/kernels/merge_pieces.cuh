// Pieces of the keys, each with its own softmax, to one result: by the kernel combine, or by the
// block of a decode kernel that ends last.
#pragma once

#include "cuda/kernels/tile.cuh"  // with the dialect, first

#include "algorithm/scaled_softmax.h"
#include "algorithm/score.h"

namespace ingot {

// What other blocks of this launch wrote, past the cache of this multiprocessor.
INGOT_FN float read_through(const float* x) {
  float y;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(y) : "l"(x) : "memory");
  return y;
}
INGOT_FN PieceSums read_through(const PieceSums* x) {
  PieceSums y;
  asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];"
               : "=f"(y.max), "=f"(y.sum)
               : "l"(x)
               : "memory");
  return y;
}
INGOT_FN float4 read_through(const float4* x) {
  float4 y;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(y.x), "=f"(y.y), "=f"(y.z), "=f"(y.w)
               : "l"(x)
               : "memory");
  return y;
}

// The sum of a piece's weights beside the largest of all pieces' scores. 0 where it saw no key.
INGOT_FN float sum_of_piece(const PieceSums* piece, float largest, float factor_log2) {
  const PieceSums x = read_through(piece);
  return x.sum * exp2_((x.max - largest) * factor_log2);
}

// A row's pieces in their order, by a warp; Width columns a lane at a time.
template <int Width, class Output>
INGOT_FN void merge_columns(const CombineParams& p, Index row, int dim, float largest,
                            float quotient, Output* o) {
  struct alignas(4 * Width) Vector {
    float x[Width];
  };
  using Load = typename Select<Width == 4, float4, float>::type;
  const PieceSums* const piece = p.partial_sums + row * p.splits;
  const float* const piece_o = p.partial_o + row * p.splits * dim;
  const int first = lane() * Width;
  for (int begin = 0; begin < dim; begin += 32 * Width) {
    const int c = begin + first;
    const bool there = c < dim;
    float sum[Width] = {};
    for (int s = 0; s < p.splits; s += 32) {
      const int pieces = p.splits - s < 32 ? p.splits - s : 32;
      const float mine =
          lane() < pieces ? sum_of_piece(piece + s + lane(), largest, p.factor * log2_e) * quotient
                          : 0.0f;
#pragma unroll 8
      for (int i = 0; i < pieces; ++i) {
        const float weight = __shfl_sync(0xFFFFFFFFu, mine, i);
        if (!there) continue;
        const Load loaded = read_through(
            reinterpret_cast<const Load*>(piece_o + static_cast<Index>(s + i) * dim + c));
        const Vector x = __builtin_bit_cast(Vector, loaded);
#pragma unroll
        for (int n = 0; n < Width; ++n) sum[n] += weight * x.x[n];
      }
    }
#pragma unroll
    for (int n = 0; n < Width; ++n) {
      if (there) from_float(o[(c + n) * p.o.stride[3]], sum[n]);
    }
  }
}

// Row (batch, head, query) of o and lse, by a warp.
template <class Output, int Dim>
INGOT_FN void merge_pieces(const CombineParams& p, Index row) {
  const Index head_row = quotient(row, p.seqlen_q), query = row - head_row * p.seqlen_q;
  const Index batch = quotient(head_row, p.heads), head = head_row - batch * p.heads;
  const PieceSums* const piece = p.partial_sums + row * p.splits;
  float largest = -infinity;
  for (int s = lane(); s < p.splits; s += 32) largest = max_(largest, read_through(piece + s).max);
  largest = finite_or_(max_of_warp(largest), 0.0f);
  float sum = 0.0f;
  for (int s = lane(); s < p.splits; s += 32) {
    sum += sum_of_piece(piece + s, largest, p.factor * log2_e);
  }
  sum = sum_of_warp(sum);
  Output* const o = static_cast<Output*>(p.o.data) + batch * p.o.stride[0] + head * p.o.stride[1] +
                    query * p.o.stride[2];
  merge_columns<Dim % 4 == 0 ? 4 : 1>(p, row, Dim, largest, sum == 0.0f ? 0.0f : 1.0f / sum, o);
  if (lane() == 0 && p.lse.data != nullptr) {
    static_cast<float*>(
        p.lse.data)[batch * p.lse.stride[0] + head * p.lse.stride[1] + query * p.lse.stride[2]] =
        lse_of(largest, sum, p.factor);
  }
}

}  // namespace ingot
