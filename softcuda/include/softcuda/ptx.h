// The PTX instructions that one thread executes by itself, one a function: the mnemonic with _ for
// . and ::. The rewriter turns the text of an asm statement into calls of these; braces and
// brackets of operands are left out, so that {%0, %1}, [%2] are three arguments. What is not here,
// in ptx_shared.h or in ptx_matrix.h does not compile.
#pragma once

namespace softcuda {

// Operands: "r" and "n", "l", "h".
template <class T>
inline u32 operand_r(T x) {
  return static_cast<u32>(x);
}
template <class T>
inline u64 operand_l(T x) {
  return static_cast<u64>(x);
}
template <class T>
inline u64 operand_l(T* x) {
  return reinterpret_cast<u64>(x);
}
template <class T>
inline u16 operand_h(T x) {
  return static_cast<u16>(x);
}

// A result of 32 or 16 bits, into whatever type the text has for it.
template <class R, class T>
inline void put(R& to, T x) {
  static_assert(sizeof(R) == sizeof(T), "the operand: must be as wide as the instruction's result");
  to = __builtin_bit_cast(R, x);
}
// An output of an empty text is whatever the register held.
inline void forget(float& x) { x = __builtin_bit_cast(float, 0x7FF00BADu); }
template <class T>
inline void forget(T&) {}

inline float flush(float x) {
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x;
}
inline u16 to_f16(float x) {
  return x != x ? u16{0x7FFF} : __builtin_bit_cast(u16, static_cast<_Float16>(x));
}
inline float from_f16(u16 x) { return static_cast<float>(__builtin_bit_cast(_Float16, x)); }
inline u16 to_bf16(float x) {
  const u32 bits = __builtin_bit_cast(u32, x);
  return x != x ? u16{0x7FFF} : static_cast<u16>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}
inline float from_bf16(u16 x) { return __builtin_bit_cast(float, static_cast<u32>(x) << 16); }

// ---- special registers ----

inline u32 register_dynamic_smem_size() { return self()->dynamic_bytes; }
inline u32 register_cluster_ctarank() { return self()->cluster_rank; }
inline u32 register_laneid() { return self()->lane; }

namespace ptx {

// ---- moves, predicates ----

template <class R, class T>
inline void mov_b32(R& to, T x) {
  put(to, x);
}
template <class R>
inline void mov_u32(R& to, u32 x) {
  put(to, x);
}
inline void mov_b32(u16& low, u16& high, u32 x) {
  low = static_cast<u16>(x);
  high = static_cast<u16>(x >> 16);
}
inline void setp_ne_b32(bool& p, u32 x, u32 y) { p = x != y; }
template <class R>
inline void selp_u32(R& to, u32 x, u32 y, bool p) {
  put(to, p ? x : y);
}

// ---- numbers ----

inline void ex2_approx_ftz_f32(float& y, float x) { y = flush(__builtin_exp2f(flush(x))); }
inline void lg2_approx_f32(float& y, float x) { y = __builtin_log2f(x); }
inline void tanh_approx_f32(float& y, float x) { y = __builtin_tanhf(x); }
inline void min_NaN_f32(float& r, float x, float y) {
  r = x != x || y != y ? __builtin_bit_cast(float, 0x7FFFFFFFu) : __builtin_fminf(x, y);
}
inline void cvt_f32_f16(float& y, u16 x) { y = from_f16(x); }
inline void cvt_rn_f16_f32(u16& y, float x) { y = to_f16(x); }
inline void cvt_rn_bf16_f32(u16& y, float x) { y = to_bf16(x); }
// The first source is the upper half.
inline void cvt_rn_f16x2_f32(u32& r, float high, float low) {
  r = static_cast<u32>(to_f16(high)) << 16 | to_f16(low);
}
inline void cvt_rn_bf16x2_f32(u32& r, float high, float low) {
  r = static_cast<u32>(to_bf16(high)) << 16 | to_bf16(low);
}
// A product of two bf16 fits f32: it is rounded once.
inline void mul_rn_bf16x2(u32& r, u32 a, u32 b) {
  u32 half[2];
  for (int i = 0; i < 2; ++i) {
    half[i] = to_bf16(from_bf16(static_cast<u16>(a >> 16 * i)) *
                      from_bf16(static_cast<u16>(b >> 16 * i)));
  }
  r = half[1] << 16 | half[0];
}

// ---- global memory ----

template <class T>
inline T* global(u64 address, u64 bytes) {
  if (address % bytes != 0) {
    Thread* const t = self();
    t->runtime->fail(t, "global memory: misaligned address", address);
  }
  return reinterpret_cast<T*>(address);
}

template <class R>
inline void ld_acquire_gpu_global_s32(R& x, u64 from) {
  Thread* const t = self();
  t->runtime->yield(t);  // who asks in a loop lets others go on
  put(x, __atomic_load_n(global<u32>(from, 4), __ATOMIC_ACQUIRE));
}
inline void st_release_gpu_global_s32(u64 to, u32 x) {
  __atomic_store_n(global<u32>(to, 4), x, __ATOMIC_RELEASE);
}
inline void ld_global_cg_f32(float& x, u64 from) {
  x = __builtin_bit_cast(float, __atomic_load_n(global<u32>(from, 4), __ATOMIC_RELAXED));
}
inline void ld_global_cg_v2_f32(float& x, float& y, u64 from) {
  const float* const p = global<float>(from, 8);
  x = p[0], y = p[1];
}
inline void ld_global_cg_v4_f32(float& x, float& y, float& z, float& w, u64 from) {
  const float* const p = global<float>(from, 16);
  x = p[0], y = p[1], z = p[2], w = p[3];
}
inline void ld_relaxed_gpu_global_v4_f32(float& x, float& y, float& z, float& w, u64 from) {
  ld_global_cg_v4_f32(x, y, z, w, from);
}
inline void st_global_v2_f32(u64 to, float x, float y) {
  float* const p = global<float>(to, 8);
  p[0] = x, p[1] = y;
}
inline void st_relaxed_gpu_global_v4_f32(u64 to, float x, float y, float z, float w) {
  float* const p = global<float>(to, 16);
  p[0] = x, p[1] = y, p[2] = z, p[3] = w;
}
inline void st_global_v4_b32(u64 to, u32 x, u32 y, u32 z, u32 w) {
  u32* const p = global<u32>(to, 16);
  p[0] = x, p[1] = y, p[2] = z, p[3] = w;
}
inline void add_atomically(float* to, float x) {
  u32* const word = reinterpret_cast<u32*>(to);
  u32 before = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(
      word, &before, __builtin_bit_cast(u32, __builtin_bit_cast(float, before) + x), true,
      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
inline void red_relaxed_gpu_global_add_v4_f32(u64 to, float x, float y, float z, float w) {
  float* const p = global<float>(to, 16);
  add_atomically(p, x);
  add_atomically(p + 1, y);
  add_atomically(p + 2, z);
  add_atomically(p + 3, w);
}

// ---- nothing to do here: registers traded, grids that overlap ----

inline void check_registers(u32 count) {
  if (count >= 24 && count <= 256 && count % 8 == 0) return;
  Thread* const t = self();
  t->runtime->fail(t, "setmaxnreg: the count must be a multiple of 8 in [24, 256]", count);
}
inline void setmaxnreg_inc_sync_aligned_u32(u32 count) { check_registers(count); }
inline void setmaxnreg_dec_sync_aligned_u32(u32 count) { check_registers(count); }
inline void griddepcontrol_launch_dependents() {}
inline void griddepcontrol_wait() {}

}  // namespace ptx
}  // namespace softcuda
