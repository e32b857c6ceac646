// One vector of elements of any dtype, from memory as f32 and back, rounded to nearest even.
#if defined(INGOT_CPU_HALF_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_HALF_INL_H
#undef INGOT_CPU_HALF_INL_H
#else
#define INGOT_CPU_HALF_INL_H
#endif

#include "core/half.hpp"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

struct F16 {
  std::uint16_t bits;
};
struct Bf16 {
  std::uint16_t bits;
};

using U16 = hn::Rebind<std::uint16_t, Vec::Tag>;
using U32 = hn::RebindToUnsigned<Vec::Tag>;

HWY_INLINE Vec load_vec(const float* p) { return Vec::load(p); }
HWY_INLINE Vec load_vec(const std::uint8_t* p) {
  const hn::Rebind<std::uint8_t, Vec::Tag> bytes;
  const hn::RebindToSigned<Vec::Tag> numbers;
  return Vec(hn::ConvertTo(Vec::Tag(), hn::PromoteTo(numbers, hn::LoadU(bytes, p))));
}
HWY_INLINE Vec load_vec(const Bf16* p) {
  const auto bits = hn::PromoteTo(U32(), hn::LoadU(U16(), &p->bits));
  return Vec(hn::BitCast(Vec::Tag(), hn::ShiftLeft<16>(bits)));
}
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
HWY_INLINE Vec load_vec(const F16* p) {
  float lanes[kLanes];
  for (Index i = 0; i < kLanes; ++i) lanes[i] = from_f16(p[i].bits);
  return Vec::load(lanes);
}
HWY_INLINE void store_vec(Vec x, F16* p) {
  float lanes[kLanes];
  x.store(lanes);
  for (Index i = 0; i < kLanes; ++i) p[i].bits = to_f16(lanes[i]);
}
#else
using Half = hn::Rebind<hwy::float16_t, Vec::Tag>;
HWY_INLINE Vec load_vec(const F16* p) {
  const auto half = hn::BitCast(Half(), hn::LoadU(U16(), &p->bits));
  return Vec(hn::PromoteTo(Vec::Tag(), half));
}
HWY_INLINE void store_vec(Vec x, F16* p) {
  hn::StoreU(hn::BitCast(U16(), hn::DemoteTo(Half(), x.raw)), U16(), &p->bits);
}
#endif

HWY_INLINE void store_vec(Vec x, float* p) { x.store(p); }
// Nearest even: add half a unit in the last place, less one where the kept part is even. A NaN
// becomes a quiet one.
HWY_INLINE void store_vec(Vec x, Bf16* p) {
  const U32 u32;
  const auto bits = hn::BitCast(u32, x.raw);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u32, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u32, 0x7FFF))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(u32, 0x0040));
  const auto is_nan = hn::RebindMask(u32, hn::IsNaN(x.raw));
  const auto kept = hn::IfThenElse(is_nan, quiet, rounded);
  hn::StoreU(hn::TruncateTo(U16(), kept), U16(), &p->bits);
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
