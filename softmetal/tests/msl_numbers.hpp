// Numbers in the formats of kernels, and how far results may be off.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace softmetal::test {

/// 16-bit formats by their bits.
enum class Format { f32, f16, bf16 };
inline const char* name_of(Format f) {
  return f == Format::f32 ? "float32" : f == Format::f16 ? "float16" : "bfloat16";
}
/// Half of the distance between neighbours near 1: what one rounding costs.
inline double rounding(Format f) {
  return f == Format::f32 ? 0x1p-24 : f == Format::f16 ? 0x1p-11 : 0x1p-8;
}

/// Numbers in one format, and what they are as floats.
class Numbers {
 public:
  Numbers(Format format, const std::vector<float>& values) : format_(format) {
    for (float x : values) put(x);
  }
  float operator[](std::size_t i) const {
    if (format_ == Format::f32) return as<float>(i);
    if (format_ == Format::f16) return static_cast<float>(as<_Float16>(i));
    const auto bits = static_cast<std::uint32_t>(as<std::uint16_t>(i)) << 16;
    float x = 0;
    std::memcpy(&x, &bits, 4);
    return x;
  }
  std::vector<std::uint8_t> bytes;

 private:
  template <typename T>
  T as(std::size_t i) const {
    T x;
    std::memcpy(&x, bytes.data() + i * sizeof(T), sizeof(T));
    return x;
  }
  template <typename T>
  void append(T x) {
    bytes.resize(bytes.size() + sizeof(T));
    std::memcpy(bytes.data() + bytes.size() - sizeof(T), &x, sizeof(T));
  }
  void put(float x) {
    if (format_ == Format::f32) return append(x);
    if (format_ == Format::f16) return append(static_cast<_Float16>(x));
    std::uint32_t u = 0;
    std::memcpy(&u, &x, 4);
    append(static_cast<std::uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16));
  }
  Format format_;
};

/// Keeps the largest error; a NaN is the worst of all.
inline void note(double& worst, double error) {
  if (!(error <= worst)) worst = std::isnan(error) ? HUGE_VAL : error;
}

}  // namespace softmetal::test
