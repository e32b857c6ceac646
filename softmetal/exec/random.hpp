// A small generator for schedules: one addition and a few multiplications a number.
#pragma once

#include <cstdint>

namespace softmetal::exec {

class Random {
 public:
  void seed(std::uint64_t value) { state_ = value; }
  /// splitmix64.
  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// 0 to n - 1.
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>(((*this)() >> 32) * n >> 32);
  }

 private:
  std::uint64_t state_ = 0;
};

}  // namespace softmetal::exec
