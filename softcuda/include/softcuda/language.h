// The CUDA C++ that kernels are written in, for a host compiler: qualifiers, the built-in
// variables, and the functions that NVRTC knows without an include.
#pragma once

#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
// __global__ and __shared__ stay: the rewriter reads them.

#define threadIdx (::softcuda::self()->thread_index)
#define blockIdx (::softcuda::self()->block_index)
#define blockDim (::softcuda::self()->block_size)
#define gridDim (::softcuda::self()->grid_size)
#define warpSize 32

namespace softcuda {

// The state of the calling thread lies at the start of the memory of its fiber.
inline Thread* self() {
  u64 stack;
#if defined(__x86_64__)
  __asm__("movq %%rsp, %0" : "=r"(stack));
#else
  __asm__("mov %0, sp" : "=r"(stack));
#endif
  return reinterpret_cast<Thread*>(stack & ~(fiber_bytes - 1));
}

inline void* dynamic_shared() { return self()->shared + dynamic_begin; }

template <class T>
inline T& static_shared(const void* site) {
  Thread* const t = self();
  const u32 at = t->runtime->shared_static(t, site, sizeof(T), alignof(T) < 16 ? 16 : alignof(T));
  return *reinterpret_cast<T*>(t->shared + at);
}

// The value of another lane, once all lanes of the mask have given theirs.
inline Exchange* give(u32 value, Meeting kind, u32 mask) {
  Thread* const t = self();
  Exchange* const lanes = t->warp->exchange[t->warp->parity];
  lanes[t->lane].in[0] = value;
  t->runtime->meet(t, kind, mask, nullptr);
  return lanes;
}
template <class T>
inline T shuffle(u32 mask, T x, u32 source) {
  static_assert(sizeof(T) == 4, "shuffles: of 32-bit values");
  const Exchange* const lanes = give(__builtin_bit_cast(u32, x), Meeting::shuffle, mask);
  return __builtin_bit_cast(T, lanes[source & 31].in[0]);
}
inline u32 vote(u32 mask, bool x) {
  const Exchange* const lanes = give(x, Meeting::vote, mask);
  u32 bits = 0;
  for (u32 i = 0; i < 32; ++i) bits |= (mask >> i & 1) != 0 && lanes[i].in[0] != 0 ? 1u << i : 0;
  return bits;
}

template <u64... I>
struct Indices {};
template <class Type, Type... I>
struct IndicesOf {
  using type = Indices<static_cast<u64>(I)...>;
};
template <class... Arguments, u64... I>
inline void call(void (*kernel)(Arguments...), void** arguments, Indices<I...>) {
  kernel(*static_cast<Arguments*>(arguments[I])...);
}
// Of argument i; 0 behind the last.
template <class... Arguments>
inline u64 size_of_argument(void (*)(Arguments...), u32 i) {
  constexpr u64 sizes[] = {sizeof(Arguments)..., 0};
  return i < sizeof...(Arguments) ? sizes[i] : 0;
}
// Calls a kernel with arguments as cuLaunchKernelEx takes them.
template <class... Arguments>
inline void call(void (*kernel)(Arguments...), void** arguments) {
  using Each = typename __make_integer_seq<IndicesOf, u64, sizeof...(Arguments)>::type;
  call(kernel, arguments, Each{});
}

}  // namespace softcuda

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- numbers ----
inline float fabsf(float x) { return __builtin_fabsf(x); }
inline float fmaxf(float x, float y) { return __builtin_fmaxf(x, y); }
inline float fminf(float x, float y) { return __builtin_fminf(x, y); }
inline float copysignf(float x, float y) { return __builtin_copysignf(x, y); }
inline float exp2f(float x) { return __builtin_exp2f(x); }
inline float log2f(float x) { return __builtin_log2f(x); }
inline float sqrtf(float x) { return __builtin_sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float __fmul_rn(float x, float y) {
#pragma clang fp contract(off)
  return x * y;
}
inline float __fadd_rn(float x, float y) {
#pragma clang fp contract(off)
  return x + y;
}
inline float __fsub_rn(float x, float y) {
#pragma clang fp contract(off)
  return x - y;
}
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }

#define SOFTCUDA_LEAST_AND_LARGEST(T)              \
  inline T min(T x, T y) { return y < x ? y : x; } \
  inline T max(T x, T y) { return x < y ? y : x; }
SOFTCUDA_LEAST_AND_LARGEST(int)
SOFTCUDA_LEAST_AND_LARGEST(unsigned)
SOFTCUDA_LEAST_AND_LARGEST(long)
SOFTCUDA_LEAST_AND_LARGEST(unsigned long)
SOFTCUDA_LEAST_AND_LARGEST(long long)
SOFTCUDA_LEAST_AND_LARGEST(unsigned long long)
inline float min(float x, float y) { return __builtin_fminf(x, y); }
inline float max(float x, float y) { return __builtin_fmaxf(x, y); }
// Mixed arguments, as CUDA's overloads take them.
inline long long min(long long x, int y) { return min(x, static_cast<long long>(y)); }
inline long long min(int x, long long y) { return min(static_cast<long long>(x), y); }
inline long long max(long long x, int y) { return max(x, static_cast<long long>(y)); }
inline long long max(int x, long long y) { return max(static_cast<long long>(x), y); }

// ---- warps, blocks, memory ----
template <class T>
inline T __shfl_sync(unsigned mask, T x, int source) {
  return softcuda::shuffle(mask, x, static_cast<unsigned>(source));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T x, int other) {
  return softcuda::shuffle(mask, x, softcuda::self()->lane ^ static_cast<unsigned>(other));
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T x, unsigned distance) {
  const unsigned lane = softcuda::self()->lane, source = lane + distance;
  return softcuda::shuffle(mask, x, source < 32 ? source : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T x, unsigned distance) {
  const unsigned lane = softcuda::self()->lane;
  return softcuda::shuffle(mask, x, lane >= distance ? lane - distance : lane);
}
inline unsigned __ballot_sync(unsigned mask, int x) { return softcuda::vote(mask, x != 0); }
inline int __any_sync(unsigned mask, int x) { return softcuda::vote(mask, x != 0) != 0; }
inline int __all_sync(unsigned mask, int x) { return softcuda::vote(mask, x != 0) == mask; }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  softcuda::Thread* const t = softcuda::self();
  t->runtime->meet(t, softcuda::Meeting::sync, mask, nullptr);
}
inline void __syncthreads() {
  softcuda::Thread* const t = softcuda::self();
  t->runtime->barrier(t, 0, 0, true);
}
inline int __syncthreads_or(int x) {
  softcuda::Thread* const t = softcuda::self();
  return t->runtime->barrier_or(t, x);
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __nanosleep(unsigned) {
  softcuda::Thread* const t = softcuda::self();
  t->runtime->yield(t);
}
inline unsigned long __cvta_generic_to_shared(const void* p) {
  softcuda::Thread* const t = softcuda::self();
  const unsigned long at =
      static_cast<unsigned long>(static_cast<const unsigned char*>(p) - t->shared);
  if (at >= (1ul << softcuda::window_shift)) {
    t->runtime->fail(t, "__cvta_generic_to_shared: no address of this block's shared memory", at);
  }
  return at;
}
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
inline unsigned atomicAdd(unsigned* to, unsigned x) {
  return __atomic_fetch_add(to, x, __ATOMIC_SEQ_CST);
}
inline int atomicAdd(int* to, int x) { return __atomic_fetch_add(to, x, __ATOMIC_SEQ_CST); }
inline void __trap() {
  softcuda::Thread* const t = softcuda::self();
  t->runtime->fail(t, "trap", 0);
}
