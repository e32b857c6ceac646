// mma.sync.m16n8k16, by the last lane that comes to it.
#include <cstring>

#include "exec/product.hpp"
#include "exec/worker.hpp"

namespace softcuda {
namespace {

u16 half(u32 pair, u32 which) { return static_cast<u16>(pair >> 16 * which); }

// Lane l holds rows l / 4 and l / 4 + 8, and columns from 2 (l % 4) on, of a and c; of b column l
// / 4.
void multiply(Exchange* lanes, bool is_bf16) {
  u16 a[16][16], b[16][8];
  float sums[16][8];
  for (u32 lane = 0; lane < 32; ++lane) {
    const u32* const in = lanes[lane].in;
    const u32 row = lane / 4, column = lane % 4 * 2;
    for (u32 c = 0; c < 2; ++c) {
      for (u32 i = 0; i < 4; ++i) a[row + i % 2 * 8][column + c + i / 2 * 8] = half(in[i], c);
      for (u32 i = 0; i < 2; ++i) b[column + c + i * 8][row] = half(in[4 + i], c);
      for (u32 i = 0; i < 2; ++i)
        std::memcpy(&sums[row + 8 * i][column + c], in + 6 + 2 * i + c, 4);
    }
  }
  multiply_add(sums, a, b, is_bf16);
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 i = 0; i < 4; ++i) {
      std::memcpy(lanes[lane].out + i, &sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2], 4);
    }
  }
}

}  // namespace

void multiply_f16(Exchange* lanes, Thread*) { multiply(lanes, false); }
void multiply_bf16(Exchange* lanes, Thread*) { multiply(lanes, true); }

}  // namespace softcuda
