// <metal_packing>: normalised numbers in the bits of an integer. The element of lowest index has
// the lowest bits, but for 565, whose first element has the highest.
#pragma once
#include "softmetal_integer.h"

namespace softmetal {

inline float unorm(uint bits, int width) {
  const uint most = (1u << width) - 1;
  return float(bits & most) / float(most);
}
inline float snorm(uint bits, int width) {
  const int x = int(bits << (32 - width)) >> (32 - width);
  return metal::max(float(x) / float((1 << (width - 1)) - 1), -1.0f);
}
inline uint to_unorm(float x, int width) {
  return uint(metal::rint(metal::saturate(x) * float((1u << width) - 1)));
}
inline uint to_snorm(float x, int width) {
  const float most = float((1 << (width - 1)) - 1);
  return uint(int(metal::rint(metal::clamp(x, -1.0f, 1.0f) * most))) & ((1u << width) - 1);
}
inline float from_srgb(float x) {
  return x <= 0.04045f ? x / 12.92f : metal::pow((x + 0.055f) / 1.055f, 2.4f);
}
inline float to_srgb(float x) {
  if (!(x > 0)) return 0;
  return x <= 0.0031308f ? x * 12.92f : 1.055f * metal::pow(x, 1 / 2.4f) - 0.055f;
}

}  // namespace softmetal

namespace metal {

inline float4 unpack_unorm4x8_to_float(uint x) {
  float4 r;
  for (int i = 0; i < 4; ++i) r[i] = softmetal::unorm(x >> (8 * i), 8);
  return r;
}
inline float4 unpack_snorm4x8_to_float(uint x) {
  float4 r;
  for (int i = 0; i < 4; ++i) r[i] = softmetal::snorm(x >> (8 * i), 8);
  return r;
}
inline float4 unpack_unorm4x8_srgb_to_float(uint x) {
  float4 r = unpack_unorm4x8_to_float(x);
  for (int i = 0; i < 3; ++i) r[i] = softmetal::from_srgb(r[i]);
  return r;
}
inline float2 unpack_unorm2x16_to_float(uint x) {
  return float2{softmetal::unorm(x, 16), softmetal::unorm(x >> 16, 16)};
}
inline float2 unpack_snorm2x16_to_float(uint x) {
  return float2{softmetal::snorm(x, 16), softmetal::snorm(x >> 16, 16)};
}
inline float4 unpack_unorm10a2_to_float(uint x) {
  return float4{softmetal::unorm(x, 10), softmetal::unorm(x >> 10, 10),
                softmetal::unorm(x >> 20, 10), softmetal::unorm(x >> 30, 2)};
}
inline float3 unpack_unorm565_to_float(ushort x) {
  return float3{softmetal::unorm(uint(x) >> 11, 5), softmetal::unorm(uint(x) >> 5, 6),
                softmetal::unorm(x, 5)};
}

inline uint pack_float_to_unorm4x8(float4 v) {
  uint r = 0;
  for (int i = 0; i < 4; ++i) r |= softmetal::to_unorm(v[i], 8) << (8 * i);
  return r;
}
inline uint pack_float_to_snorm4x8(float4 v) {
  uint r = 0;
  for (int i = 0; i < 4; ++i) r |= softmetal::to_snorm(v[i], 8) << (8 * i);
  return r;
}
inline uint pack_float_to_srgb_unorm4x8(float4 v) {
  for (int i = 0; i < 3; ++i) v[i] = softmetal::to_srgb(v[i]);
  return pack_float_to_unorm4x8(v);
}
inline uint pack_float_to_unorm2x16(float2 v) {
  return softmetal::to_unorm(v.x, 16) | softmetal::to_unorm(v.y, 16) << 16;
}
inline uint pack_float_to_snorm2x16(float2 v) {
  return softmetal::to_snorm(v.x, 16) | softmetal::to_snorm(v.y, 16) << 16;
}
inline uint pack_float_to_unorm10a2(float4 v) {
  return softmetal::to_unorm(v.x, 10) | softmetal::to_unorm(v.y, 10) << 10 |
         softmetal::to_unorm(v.z, 10) << 20 | softmetal::to_unorm(v.w, 2) << 30;
}
inline ushort pack_float_to_unorm565(float3 v) {
  return ushort(softmetal::to_unorm(v.x, 5) << 11 | softmetal::to_unorm(v.y, 6) << 5 |
                softmetal::to_unorm(v.z, 5));
}

#define SOFTMETAL_UNPACK_HALF(n, name, bits)                              \
  inline vec<half, n> unpack_##name##_to_half(bits x) {                   \
    return softmetal::convert<vec<half, n>>(unpack_##name##_to_float(x)); \
  }
#define SOFTMETAL_PACK_HALF(n, name, bits)                             \
  inline bits pack_half_to_##name(vec<half, n> v) {                    \
    return pack_float_to_##name(softmetal::convert<vec<float, n>>(v)); \
  }
SOFTMETAL_UNPACK_HALF(4, unorm4x8, uint)
SOFTMETAL_UNPACK_HALF(4, snorm4x8, uint)
SOFTMETAL_UNPACK_HALF(4, unorm4x8_srgb, uint)
SOFTMETAL_UNPACK_HALF(2, unorm2x16, uint)
SOFTMETAL_UNPACK_HALF(2, snorm2x16, uint)
SOFTMETAL_UNPACK_HALF(4, unorm10a2, uint)
SOFTMETAL_UNPACK_HALF(3, unorm565, ushort)
SOFTMETAL_PACK_HALF(4, unorm4x8, uint)
SOFTMETAL_PACK_HALF(4, snorm4x8, uint)
SOFTMETAL_PACK_HALF(4, srgb_unorm4x8, uint)
SOFTMETAL_PACK_HALF(2, unorm2x16, uint)
SOFTMETAL_PACK_HALF(2, snorm2x16, uint)
SOFTMETAL_PACK_HALF(4, unorm10a2, uint)
SOFTMETAL_PACK_HALF(3, unorm565, ushort)
#undef SOFTMETAL_UNPACK_HALF
#undef SOFTMETAL_PACK_HALF

}  // namespace metal
