// The two products of attention for the tile of one warp. Operands in shared memory lie in rows of
// `pitch` elements (SharedTile). f16 and bf16 run on tensor cores, float as multiply-adds in f32.
#pragma once

#include "cuda/kernels/tile.cuh"

namespace ingot {

// s += a b^T: a is M x K, b is N x K.
template <int K, class T, int M, int N>
INGOT_FN void multiply_transposed(Fragment<M, N>& s, const T* a, int a_pitch, const T* b,
                                  int b_pitch) {
  const T* a_lane = a + lane() % 16 * a_pitch + lane() / 16 * 8;
  const T* b_lane = b + (lane() % 8 + lane() / 16 * 8) * b_pitch + lane() / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < K; k += 16) {
    unsigned a_operand[M / 16][4];
#pragma unroll
    for (int m = 0; m < M / 16; ++m) {
      load_matrices(a_operand[m], shared_address(a_lane + m * 16 * a_pitch + k));
    }
#pragma unroll
    for (int n = 0; n < N / 16; ++n) {
      unsigned b_operand[4];
      load_matrices(b_operand, shared_address(b_lane + n * 16 * b_pitch + k));
#pragma unroll
      for (int m = 0; m < M / 16; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int j = 4 * n + 2 * h;
          multiply_add(T{}, s.x[2 * m][j], s.x[2 * m][j + 1], s.x[2 * m + 1][j],
                       s.x[2 * m + 1][j + 1], a_operand[m], b_operand[2 * h], b_operand[2 * h + 1]);
        }
      }
    }
  }
}

// o += p b, to the cols of o from `first` on: p is M x K and rounded to T, b is K x N.
template <int N, class T, int M, int K, int Cols>
INGOT_FN void multiply(Fragment<M, Cols>& o, int first, const Fragment<M, K>& p, const T* b,
                       int b_pitch) {
  const T* b_lane = b + lane() % 16 * b_pitch + lane() / 16 * 8;
#pragma unroll
  for (int k = 0; k < K / 16; ++k) {
    unsigned a_operand[M / 16][4];
#pragma unroll
    for (int m = 0; m < M / 16; ++m) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float* x = &p.x[2 * m + r % 2][4 * k + r / 2 * 2];
        a_operand[m][r] = pack<T>(x[0], x[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < N / 16; ++n) {
      unsigned b_operand[4];
      load_matrices_transposed(b_operand, shared_address(b_lane + k * 16 * b_pitch + n * 16));
#pragma unroll
      for (int m = 0; m < M / 16; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int j = first / 4 + 4 * n + 2 * h;
          multiply_add(T{}, o.x[2 * m][j], o.x[2 * m][j + 1], o.x[2 * m + 1][j],
                       o.x[2 * m + 1][j + 1], a_operand[m], b_operand[2 * h], b_operand[2 * h + 1]);
        }
      }
    }
  }
}

// The same in f32. Four cols of both operands at a time.
template <int K, int M, int N>
INGOT_FN void multiply_transposed(Fragment<M, N>& s, const float* a, int a_pitch, const float* b,
                                  int b_pitch) {
  using S = Fragment<M, N>;
#pragma unroll 1
  for (int k = 0; k < K; k += 4) {
    float4 x[S::rows];
#pragma unroll
    for (int i = 0; i < S::rows; ++i) {
      x[i] = *reinterpret_cast<const float4*>(a + S::row(i) * a_pitch + k);
    }
#pragma unroll
    for (int j = 0; j < S::cols; ++j) {
      const float4 y = *reinterpret_cast<const float4*>(b + S::col(j) * b_pitch + k);
#pragma unroll
      for (int i = 0; i < S::rows; ++i) {
        s.x[i][j] += x[i].x * y.x;
        s.x[i][j] += x[i].y * y.y;
        s.x[i][j] += x[i].z * y.z;
        s.x[i][j] += x[i].w * y.w;
      }
    }
  }
}

// Row k of b times col k of p, which the quad's lanes hold in turn.
template <int N, int M, int K, int Cols>
INGOT_FN void multiply(Fragment<M, Cols, 4>& o, int first, const Fragment<M, K>& p, const float* b,
                       int b_pitch) {
  using P = Fragment<M, K>;
#pragma unroll
  for (int j = 0; j < P::cols; ++j) {
#pragma unroll 1
    for (int owner = 0; owner < 4; ++owner) {
      const float* row = b + (8 * (j / 2) + 2 * owner + j % 2) * b_pitch + 4 * (lane() % 4);
      float weight[P::rows];
#pragma unroll
      for (int i = 0; i < P::rows; ++i) {
        weight[i] = __shfl_sync(0xFFFFFFFFu, p.x[i][j], lane() / 4 * 4 + owner);
      }
#pragma unroll
      for (int n = 0; n < N / 16; ++n) {
        const float4 y = *reinterpret_cast<const float4*>(row + 16 * n);
#pragma unroll
        for (int i = 0; i < P::rows; ++i) {
          float* out = &o.x[i][first / 4 + 4 * n];
          out[0] += weight[i] * y.x;
          out[1] += weight[i] * y.y;
          out[2] += weight[i] * y.z;
          out[3] += weight[i] * y.w;
        }
      }
    }
  }
}

// What a product of element type T accumulates o in.
template <class T, int M, int N>
struct Accumulator {
  using type = Fragment<M, N>;
};
template <int M, int N>
struct Accumulator<float, M, N> {
  using type = Fragment<M, N, 4>;
};

}  // namespace ingot
