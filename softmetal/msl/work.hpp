// What one instruction of the IR counts as in softmetal_counters.
#pragma once

#include <string_view>

#include "../stdlib/softmetal_abi.h"

namespace softmetal::msl {

/// Operations by element: a fused multiply-add is two floating point operations, an instruction on
/// a vector of four is four.
struct Work {
  softmetal_abi::u32 floats = 0;    ///< add, subtract, multiply, compare, min, max, round, convert
  softmetal_abi::u32 integers = 0;  ///< arithmetic, shifts, logic, comparisons, bit counts
  softmetal_abi::u32 special = 0;   ///< division, remainder, square root, exp, log, sin, pow, ...

  Work& operator+=(const Work& o) {
    floats += o.floats;
    integers += o.integers;
    special += o.special;
    return *this;
  }
  bool empty() const { return floats + integers + special == 0; }
};

/// Zero for what moves, selects or addresses, for negation and absolute values (free on a GPU) and
/// for conversions between integers.
Work work_of(std::string_view line);

}  // namespace softmetal::msl
