// The PTX instructions of tensor cores: products of a warp and of a warpgroup, and the loads and
// stores of their fragments.
#pragma once

namespace softcuda {

// The four 8x8 matrices whose row addresses the lanes gave; by the last lane to come.
inline void load_matrices(Exchange* lanes, Thread* caller, bool transposed) {
  const u8* rows[32];
  for (u32 i = 0; i < 32; ++i) {
    rows[i] = caller->runtime->shared_at(caller, lanes[i].in[0], 16, 16);
  }
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 m = 0; m < 4; ++m) {
      u16 half[2];
      for (u32 c = 0; c < 2; ++c) {
        const u32 row = transposed ? lane % 4 * 2 + c : lane / 4;
        const u32 column = transposed ? lane / 4 : lane % 4 * 2 + c;
        half[c] = reinterpret_cast<const u16*>(rows[8 * m + row])[column];
      }
      lanes[lane].out[m] = static_cast<u32>(half[1]) << 16 | half[0];
    }
  }
}
inline void load_matrices_straight(Exchange* lanes, Thread* caller) {
  load_matrices(lanes, caller, false);
}
inline void load_matrices_transposed(Exchange* lanes, Thread* caller) {
  load_matrices(lanes, caller, true);
}
inline void store_matrices(Exchange* lanes, Thread* caller) {
  for (u32 m = 0; m < 4; ++m) {
    for (u32 row = 0; row < 8; ++row) {
      u8* const to = caller->runtime->shared_at(caller, lanes[8 * m + row].in[0], 16, 16);
      for (u32 i = 0; i < 4; ++i) reinterpret_cast<u32*>(to)[i] = lanes[4 * row + i].in[1 + m];
    }
  }
}

inline Exchange* exchange(Thread* t) { return t->warp->exchange[t->warp->parity]; }

namespace ptx {

inline void load_four(u32& x, u32& y, u32& z, u32& w, u32 from, void (*load)(Exchange*, Thread*)) {
  Thread* const t = self();
  Exchange* const lanes = exchange(t);
  lanes[t->lane].in[0] = from;
  t->runtime->meet(t, Meeting::load_matrix, ~0u, load);
  const u32* const out = lanes[t->lane].out;
  x = out[0], y = out[1], z = out[2], w = out[3];
}
inline void ldmatrix_sync_aligned_m8n8_x4_shared_b16(u32& x, u32& y, u32& z, u32& w, u32 from) {
  load_four(x, y, z, w, from, load_matrices_straight);
}
inline void ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(u32& x, u32& y, u32& z, u32& w,
                                                           u32 from) {
  load_four(x, y, z, w, from, load_matrices_transposed);
}
inline void stmatrix_sync_aligned_m8n8_x4_shared_b16(u32 to, u32 x, u32 y, u32 z, u32 w) {
  Thread* const t = self();
  Exchange* const lanes = exchange(t);
  u32* const in = lanes[t->lane].in;
  in[0] = to, in[1] = x, in[2] = y, in[3] = z, in[4] = w;
  t->runtime->meet(t, Meeting::store_matrix, ~0u, store_matrices);
}

inline void multiply(float* d, const u32 (&a)[4], const u32 (&b)[2], const float (&c)[4],
                     void (*product)(Exchange*, Thread*)) {
  Thread* const t = self();
  Exchange& mine = exchange(t)[t->lane];
  for (u32 i = 0; i < 4; ++i) mine.in[i] = a[i];
  for (u32 i = 0; i < 2; ++i) mine.in[4 + i] = b[i];
  for (u32 i = 0; i < 4; ++i) mine.in[6 + i] = __builtin_bit_cast(u32, c[i]);
  t->runtime->meet(t, Meeting::matrix, ~0u, product);
  for (u32 i = 0; i < 4; ++i) d[i] = __builtin_bit_cast(float, mine.out[i]);
}
inline void mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32(float& d0, float& d1, float& d2,
                                                              float& d3, u32 a0, u32 a1, u32 a2,
                                                              u32 a3, u32 b0, u32 b1, float c0,
                                                              float c1, float c2, float c3) {
  float d[4];
  multiply(d, {a0, a1, a2, a3}, {b0, b1}, {c0, c1, c2, c3}, self()->runtime->multiply_f16);
  d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
}
inline void mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32(float& d0, float& d1, float& d2,
                                                                float& d3, u32 a0, u32 a1, u32 a2,
                                                                u32 a3, u32 b0, u32 b1, float c0,
                                                                float c1, float c2, float c3) {
  float d[4];
  multiply(d, {a0, a1, a2, a3}, {b0, b1}, {c0, c1, c2, c3}, self()->runtime->multiply_bf16);
  d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
}

inline void wgmma_fence_sync_aligned() {}
inline void wgmma_commit_group_sync_aligned() {
  Thread* const t = self();
  t->runtime->wgmma_commit(t);
}
inline void wgmma_wait_group_sync_aligned(u32 groups) {
  Thread* const t = self();
  t->runtime->wgmma_wait(t, groups);
}

}  // namespace ptx

// wgmma.mma_async.sync.aligned.m64nNk16.f32.T.T, of which the rewriter makes these two. The sums
// are N / 2 numbers one after the other: the device keeps their place until the product is done.
inline void issue(WgmmaOp& op, u32 scale_a, u32 scale_b) {
  Thread* const t = self();
  if (scale_a != 1 || scale_b != 1) t->runtime->fail(t, "wgmma: no negated operands here", 0);
  t->runtime->wgmma(t, op);
}
template <u16 Columns, bool IsBf16>
inline void wgmma_shared(float* sums, u64 a, u64 b, bool accumulate, u32 scale_a, u32 scale_b,
                         u32 transpose_a, u32 transpose_b) {
  WgmmaOp op{
      sums,      a, b, {0, 0, 0, 0}, Columns, IsBf16, false, transpose_a != 0, transpose_b != 0,
      accumulate};
  issue(op, scale_a, scale_b);
}
template <u16 Columns, bool IsBf16>
inline void wgmma_registers(float* sums, u32 a0, u32 a1, u32 a2, u32 a3, u64 b, bool accumulate,
                            u32 scale_a, u32 scale_b, u32 transpose_b) {
  WgmmaOp op{sums,   0,    b,     {a0, a1, a2, a3}, Columns,
             IsBf16, true, false, transpose_b != 0, accumulate};
  issue(op, scale_a, scale_b);
}
// Sums lie one after the other.
inline void check_place(bool in_order) {
  if (in_order) return;
  Thread* const t = self();
  t->runtime->fail(t, "wgmma: sums must be elements of one array, in order", 0);
}

}  // namespace softcuda
