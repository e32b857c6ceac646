// The one product that every kernel of the CPU back end is made of. Declarations; tile.cpp defines
// them once per instruction set.
#if defined(INGOT_CPU_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_TILE_INL_H
#undef INGOT_CPU_TILE_INL_H
#else
#define INGOT_CPU_TILE_INL_H
#endif

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

/// What C holds before the sum is added: nothing, itself, or itself times col_factor[col].
enum class Start : std::uint8_t { zero, add, scaled };

/// C[row][col] = start + sum over depth of A(row, depth) * B[depth][col].
/// A is read one scalar at a time from where it lies; B and C are rows of vectors.
struct Product {
  Index rows, cols, depth;  // cols: a multiple of kLanes; the others any number >= 0
  const float* a;
  Index a_row, a_depth;  // elements between rows and between depths; one of the two is 1
  const float* b;
  Index b_depth;  // elements between rows of B, >= cols
  float* c;
  Index c_row;  // elements between rows of C, >= cols
  Start start = Start::zero;
  const float* col_factor = nullptr;  // Start::scaled: one factor per col
};

/// Each element is summed in the order of depth by fused multiply-adds, whatever the sizes: the
/// bits of a row of C depend on nothing but its own operands.
void multiply(const Product& product);

/// As multiply(), and raises col_max[col] to the largest value of C.
void multiply_with_max(const Product& product, float* col_max);

/// Vectors a tile of C is wide; block_m a multiple of kTileVecs * kLanes keeps every tile at full
/// width.
inline constexpr Index kTileVecs = 2;

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
