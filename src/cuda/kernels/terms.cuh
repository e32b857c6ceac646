// Numbers of f32 as sums of planes, terms of 16 bits, the largest first. A product of two such
// numbers is the sum of products of their planes, those below f32 left out: term 0 is (0, 0), 1 and
// 2 are (0, 1) and (1, 0), 3 to 5 (0, 2), (1, 1) and (2, 0).
#pragma once

#include "cuda/kernels/dialect.h"

namespace ingot {

INGOT_FN constexpr int terms_of(int planes) { return planes * (planes + 1) / 2; }
INGOT_FN constexpr int sum_of_planes(int term) { return term >= 3 ? 2 : term >= 1 ? 1 : 0; }
INGOT_FN constexpr int first_plane(int term) {
  return term - sum_of_planes(term) * (sum_of_planes(term) + 1) / 2;
}
INGOT_FN constexpr int second_plane(int term) { return sum_of_planes(term) - first_plane(term); }

}  // namespace ingot
