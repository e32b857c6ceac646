// Matrix products of a warpgroup (wgmma): 64 x N accumulators += A (64 x 16) * B (16 x N), f32
// accumulators. One instruction a function.
//
// Accumulators, thread t of 128, lane l = t % 32: d[4 * i + 2 * h + c] is row 16 * (t / 32) + l / 4
// + 8 * h, column 8 * i + 2 * (l % 4) + c. Packed in pairs they are, in order, the registers of an
// A operand: weights feed the second product without leaving the thread.
#pragma once

#include "cuda/kernels/dialect.h"

namespace ingot {

// Orders register accesses before the products that follow; commit closes a group of them.
INGOT_FN void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INGOT_FN void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int InFlight>
INGOT_FN void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(InFlight) : "memory");
}

// 16 x 16 numbers of 16 bits, accumulators in pairs, to shared memory: lane l gives the address of
// row l % 16, columns 8 * (l / 16) on.
INGOT_FN void store_matrix(u32 to, const u32* x) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
}
// And back: the registers of an A operand.
INGOT_FN void load_matrix(u32* x, u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(from)
               : "memory");
}
INGOT_FN void store_shared(u32 to, const float (&x)[2]) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x[0]), "f"(x[1]) : "memory");
}
// Before a barrier: what this thread stored to shared memory is seen by products behind it.
INGOT_FN void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Emits nothing: keeps the compiler from reading accumulators before the wait above it.
template <int Count>
INGOT_FN void settle(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Emits nothing: the numbers are of no further use. Without it they stay in registers until a
// product overwrites them, since its instruction could add to them.
template <int Count>
INGOT_FN void forget(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "=f"(d[i]));
}

// Copies that the compiler does not see through: the next product into `from` may be issued.
template <int Count>
INGOT_FN void move(float (&to)[Count], const float (&from)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("mov.b32 %0, %1;" : "=f"(to[i]) : "f"(from[i]));
}

// Descriptor of a tile with 128-byte swizzle: panels of 64 columns, 1024-byte groups of 8 rows.
// `panel_bytes` is the distance of panels and read only where B is taken by columns (transposed).
// Adding bytes / 16 to a descriptor moves its tile: 32 bytes are the next 16 columns, 2048 the next
// 16 rows.
INGOT_FN u64 wgmma_tile(u32 address, u32 panel_bytes) {
  return static_cast<u64>((address & 0x3FFFF) >> 4) | static_cast<u64>(panel_bytes >> 4) << 16 |
         static_cast<u64>(1024 >> 4) << 32 | 1ull << 62;
}

// T: f16 or bf16. ss takes A from shared memory, rs from registers. Transposed operands lie in
// shared memory with the contraction along rows. `accumulate` 0 overwrites d.
template <class T, int N>
struct Wgmma;

#define INGOT_ROW0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define INGOT_ROW1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define INGOT_ROW2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define INGOT_ROW3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define INGOT_ROW4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define INGOT_ROW5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define INGOT_ROW6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define INGOT_ROW7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define INGOT_ROW8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define INGOT_ROW9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define INGOT_ROW10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define INGOT_ROW11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define INGOT_ROW12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define INGOT_ROW13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define INGOT_ROW14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define INGOT_ROW15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define INGOT_ACC8(i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define INGOT_ROWS16 INGOT_ROW0
#define INGOT_ROWS32 INGOT_ROWS16 ", " INGOT_ROW1
#define INGOT_ROWS48 INGOT_ROWS32 ", " INGOT_ROW2
#define INGOT_ROWS64 INGOT_ROWS48 ", " INGOT_ROW3
#define INGOT_ROWS80 INGOT_ROWS64 ", " INGOT_ROW4
#define INGOT_ROWS96 INGOT_ROWS80 ", " INGOT_ROW5
#define INGOT_ROWS112 INGOT_ROWS96 ", " INGOT_ROW6
#define INGOT_ROWS128 INGOT_ROWS112 ", " INGOT_ROW7
#define INGOT_ROWS144 INGOT_ROWS128 ", " INGOT_ROW8
#define INGOT_ROWS160 INGOT_ROWS144 ", " INGOT_ROW9
#define INGOT_ROWS176 INGOT_ROWS160 ", " INGOT_ROW10
#define INGOT_ROWS192 INGOT_ROWS176 ", " INGOT_ROW11
#define INGOT_ROWS208 INGOT_ROWS192 ", " INGOT_ROW12
#define INGOT_ROWS224 INGOT_ROWS208 ", " INGOT_ROW13
#define INGOT_ROWS240 INGOT_ROWS224 ", " INGOT_ROW14
#define INGOT_ROWS256 INGOT_ROWS240 ", " INGOT_ROW15
#define INGOT_ACCS16 INGOT_ACC8(0)
#define INGOT_ACCS32 INGOT_ACCS16, INGOT_ACC8(8)
#define INGOT_ACCS48 INGOT_ACCS32, INGOT_ACC8(16)
#define INGOT_ACCS64 INGOT_ACCS48, INGOT_ACC8(24)
#define INGOT_ACCS80 INGOT_ACCS64, INGOT_ACC8(32)
#define INGOT_ACCS96 INGOT_ACCS80, INGOT_ACC8(40)
#define INGOT_ACCS112 INGOT_ACCS96, INGOT_ACC8(48)
#define INGOT_ACCS128 INGOT_ACCS112, INGOT_ACC8(56)
#define INGOT_ACCS144 INGOT_ACCS128, INGOT_ACC8(64)
#define INGOT_ACCS160 INGOT_ACCS144, INGOT_ACC8(72)
#define INGOT_ACCS176 INGOT_ACCS160, INGOT_ACC8(80)
#define INGOT_ACCS192 INGOT_ACCS176, INGOT_ACC8(88)
#define INGOT_ACCS208 INGOT_ACCS192, INGOT_ACC8(96)
#define INGOT_ACCS224 INGOT_ACCS208, INGOT_ACC8(104)
#define INGOT_ACCS240 INGOT_ACCS224, INGOT_ACC8(112)
#define INGOT_ACCS256 INGOT_ACCS240, INGOT_ACC8(120)

// r0 to r6: numbers of the operands after the N / 2 accumulators.
#define INGOT_WGMMA(T, N, r0, r1, r2, r3, r4, r5, r6)                                             \
  template <>                                                                                     \
  struct Wgmma<T, N> {                                                                            \
    template <int TransposeA, int TransposeB>                                                     \
    static INGOT_FN void ss(float* d, u64 a, u64 b, int accumulate) {                             \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r2                                       \
                   ", 0;\n"                                                                       \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" INGOT_ROWS##N \
                   "}, %" #r0 ", %" #r1 ", p, 1, 1, %" #r3 ", %" #r4 ";\n}"                       \
                   : INGOT_ACCS##N                                                                \
                   : "l"(a), "l"(b), "r"(accumulate), "n"(TransposeA), "n"(TransposeB));          \
    }                                                                                             \
    template <int TransposeB>                                                                     \
    static INGOT_FN void rs(float* d, const u32* a, u64 b, int accumulate) {                      \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r5                                       \
                   ", 0;\n"                                                                       \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" INGOT_ROWS##N \
                   "}, {%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 ", p, 1, 1, %" #r6 ";\n}" \
                   : INGOT_ACCS##N                                                                \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),         \
                     "n"(TransposeB));                                                            \
    }                                                                                             \
  };
#define INGOT_WGMMA_BOTH(N, r0, r1, r2, r3, r4, r5, r6) \
  INGOT_WGMMA(bf16, N, r0, r1, r2, r3, r4, r5, r6)      \
  INGOT_WGMMA(f16, N, r0, r1, r2, r3, r4, r5, r6)

INGOT_WGMMA_BOTH(16, 8, 9, 10, 11, 12, 13, 14)
INGOT_WGMMA_BOTH(32, 16, 17, 18, 19, 20, 21, 22)
INGOT_WGMMA_BOTH(48, 24, 25, 26, 27, 28, 29, 30)
INGOT_WGMMA_BOTH(64, 32, 33, 34, 35, 36, 37, 38)
INGOT_WGMMA_BOTH(80, 40, 41, 42, 43, 44, 45, 46)
INGOT_WGMMA_BOTH(96, 48, 49, 50, 51, 52, 53, 54)
INGOT_WGMMA_BOTH(112, 56, 57, 58, 59, 60, 61, 62)
INGOT_WGMMA_BOTH(128, 64, 65, 66, 67, 68, 69, 70)
INGOT_WGMMA_BOTH(144, 72, 73, 74, 75, 76, 77, 78)
INGOT_WGMMA_BOTH(160, 80, 81, 82, 83, 84, 85, 86)
INGOT_WGMMA_BOTH(176, 88, 89, 90, 91, 92, 93, 94)
INGOT_WGMMA_BOTH(192, 96, 97, 98, 99, 100, 101, 102)
INGOT_WGMMA_BOTH(208, 104, 105, 106, 107, 108, 109, 110)
INGOT_WGMMA_BOTH(224, 112, 113, 114, 115, 116, 117, 118)
INGOT_WGMMA_BOTH(240, 120, 121, 122, 123, 124, 125, 126)
INGOT_WGMMA_BOTH(256, 128, 129, 130, 131, 132, 133, 134)

}  // namespace ingot
