// Vec: one f32 vector of the current instruction set with the operators that algorithm/ needs, and
// algorithm/ itself in the namespace of that instruction set. Included once per instruction set
// (hwy/foreach_target.h).
#if defined(INGOT_CPU_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_SIMD_INL_H
#undef INGOT_CPU_SIMD_INL_H
#else
#define INGOT_CPU_SIMD_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>

// algorithm/ goes into this instruction set's namespace, whatever was included before: the guards
// of its headers are taken back, all that are included below.
#undef INGOT_DIALECT_H
#undef INGOT_PARAMS_H
#undef INGOT_SCORE_H
#undef INGOT_BAND_H
#undef INGOT_ONLINE_SOFTMAX_H
#undef INGOT_ALIBI_H
#undef INGOT_DROPOUT_H
#undef INGOT_FN
#define INGOT_FN HWY_INLINE
#undef INGOT_NAMESPACE
#define INGOT_NAMESPACE ingot::HWY_NAMESPACE
#undef INGOT_INDEX
#define INGOT_INDEX std::int64_t

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The Config of value_log2() and derivative(): what the passes over a tile choose between.
struct PlainScore {
  static constexpr bool softcap = false;
};
struct CappedScore {
  static constexpr bool softcap = true;
};

inline constexpr std::int64_t kLanes = HWY_LANES(float);

struct Vec {
  using Tag = hn::FixedTag<float, HWY_LANES(float)>;
  using Raw = hn::Vec<Tag>;
  Raw raw;

  Vec() = default;
  HWY_INLINE explicit Vec(float x) : raw(hn::Set(Tag(), x)) {}
  HWY_INLINE explicit Vec(Raw r) : raw(r) {}

  static HWY_INLINE Vec load(const float* p) { return Vec(hn::LoadU(Tag(), p)); }
  HWY_INLINE void store(float* p) const { hn::StoreU(raw, Tag(), p); }

  friend HWY_INLINE Vec operator+(Vec a, Vec b) { return Vec(hn::Add(a.raw, b.raw)); }
  friend HWY_INLINE Vec operator-(Vec a, Vec b) { return Vec(hn::Sub(a.raw, b.raw)); }
  friend HWY_INLINE Vec operator*(Vec a, Vec b) { return Vec(hn::Mul(a.raw, b.raw)); }
  friend HWY_INLINE Vec operator/(Vec a, Vec b) { return Vec(hn::Div(a.raw, b.raw)); }
  friend HWY_INLINE Vec operator*(Vec a, float b) { return a * Vec(b); }
};

/// a * b + c, rounded once.
HWY_INLINE Vec fma_(Vec a, Vec b, Vec c) { return Vec(hn::MulAdd(a.raw, b.raw, c.raw)); }

/// The larger one. A NaN may stay or be dropped, by instruction set.
HWY_INLINE Vec max_(Vec a, Vec b) { return Vec(hn::Max(a.raw, b.raw)); }

HWY_INLINE Vec abs_(Vec x) { return Vec(hn::Abs(x.raw)); }

HWY_INLINE Vec finite_or_(Vec x, Vec y) {
  const Vec minus_infinity(-__builtin_inff());
  return Vec(hn::IfThenElse(hn::Eq(x.raw, minus_infinity.raw), y.raw, x.raw));
}

/// Is any lane of a different from b's? True where a NaN takes part.
HWY_INLINE bool any_differs(Vec a, Vec b) { return !hn::AllTrue(Vec::Tag(), hn::Eq(a.raw, b.raw)); }

/// a where first <= x < end, else b.
HWY_INLINE Vec where_inside(Vec x, Vec first, Vec end, Vec a, Vec b) {
  const auto inside = hn::And(hn::Ge(x.raw, first.raw), hn::Lt(x.raw, end.raw));
  return Vec(hn::IfThenElse(inside, a.raw, b.raw));
}

/// b where `flag` is 0, else a.
HWY_INLINE Vec where_set(Vec flag, Vec a, Vec b) {
  return Vec(hn::IfThenElse(hn::Eq(flag.raw, hn::Zero(Vec::Tag())), b.raw, a.raw));
}

/// first, first + 1, ... in the lanes.
HWY_INLINE Vec counted_from(float first) { return Vec(hn::Iota(Vec::Tag(), first)); }

HWY_INLINE float largest_lane(Vec x) { return hn::GetLane(hn::MaxOfLanes(Vec::Tag(), x.raw)); }
HWY_INLINE float sum_of_lanes(Vec x) { return hn::GetLane(hn::SumOfLanes(Vec::Tag(), x.raw)); }

/// to[0..3] = the sums over all lanes of a, b, c, d.
HWY_INLINE void store_sums(Vec a, Vec b, Vec c, Vec d, float* to) {
#if HWY_TARGET == HWY_SCALAR
  to[0] = hn::GetLane(a.raw);
  to[1] = hn::GetLane(b.raw);
  to[2] = hn::GetLane(c.raw);
  to[3] = hn::GetLane(d.raw);
#else
  const Vec::Tag tag;
  const hn::FixedTag<float, 4> four;
  // In every 4 lanes: ab = a0+a2 b0+b2 a1+a3 b1+b3, cd likewise, and from these one vector with the
  // sums of a, b, c, d.
  const auto ab =
      hn::Add(hn::InterleaveLower(tag, a.raw, b.raw), hn::InterleaveUpper(tag, a.raw, b.raw));
  const auto cd =
      hn::Add(hn::InterleaveLower(tag, c.raw, d.raw), hn::InterleaveUpper(tag, c.raw, d.raw));
  const hn::Repartition<double, Vec::Tag> pairs;
  const auto low = hn::InterleaveLower(pairs, hn::BitCast(pairs, ab), hn::BitCast(pairs, cd));
  const auto high = hn::InterleaveUpper(pairs, hn::BitCast(pairs, ab), hn::BitCast(pairs, cd));
  const auto quarters = hn::Add(hn::BitCast(tag, low), hn::BitCast(tag, high));
  alignas(64) float parts[kLanes];
  hn::Store(quarters, tag, parts);
  auto sum = hn::Load(four, parts);
  for (std::int64_t i = 4; i < kLanes; i += 4) sum = hn::Add(sum, hn::Load(four, parts + i));
  hn::StoreU(sum, four, to);
#endif
}

// 2^f on [0, 1], exact at 0; off by 1.2e-7 at most before rounding.
HWY_INLINE Vec exp2_fraction(Vec f) {
  Vec p(1.8852974265974787e-3F);
  p = fma_(p, f, Vec(8.973378626052785e-3F));
  p = fma_(p, f, Vec(5.5835926896550744e-2F));
  p = fma_(p, f, Vec(2.4015280758058657e-1F));
  p = fma_(p, f, Vec(6.931524714721458e-1F));
  return fma_(p, f, Vec(1.0F));
}

/// 2^t for t below 103, +inf or 2^t from there on: at most 2 ulp off, also where the result is
/// subnormal; exactly 0 for -inf and for t below -150; NaN stays NaN.
HWY_INLINE Vec exp2_(Vec t) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  constexpr int kFractionAboveFloor = 1;
  const Vec f(Vec::Raw{_mm512_reduce_ps(t.raw.raw, kFractionAboveFloor)});
  return Vec(Vec::Raw{_mm512_scalef_ps(exp2_fraction(f).raw.raw, t.raw.raw)});
#else
  // The exponent is put in 25 too high, so that it is one of a normal number down to 2^-150, and
  // a product with 2^-25 rounds to a subnormal one where the result is one. What is to be 0 is made
  // 0 before: a product that underflows costs a hundred cycles.
  const Vec::Tag tag;
  const hn::RebindToSigned<Vec::Tag> int_tag;
  const auto x = hn::Min(hn::Set(tag, 103.0F), t.raw);  // a NaN stays or not, by instruction set
  const auto whole = hn::Floor(x);
  const Vec p = exp2_fraction(Vec(hn::Sub(x, whole)));
  const auto in_last_bits = hn::Add(whole, hn::Set(tag, 12582912.0F + 25.0F));  // 1.5 * 2^23
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(int_tag, in_last_bits));
  const auto scaled = hn::BitCast(tag, hn::Add(hn::BitCast(int_tag, p.raw), exponent));
  const auto none_is_zero = hn::IfThenZeroElse(hn::Lt(t.raw, hn::Set(tag, -150.0F)), scaled);
  const Vec result(hn::Mul(none_is_zero, hn::Set(tag, 0x1p-25F)));
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  return result;  // min returns its second operand if one is NaN, and what follows keeps it
#else
  return Vec(hn::IfThenElse(hn::IsNaN(t.raw), t.raw, result.raw));
#endif
#endif
}

/// At most 3 ulp off, also near 0; NaN stays NaN.
HWY_INLINE Vec tanh_(Vec x) {
  const Vec square = x * x;
  Vec p(-5.704987172758275e-3F);
  p = fma_(p, square, Vec(2.063908740111264e-2F));
  p = fma_(p, square, Vec(-5.373971513239841e-2F));
  p = fma_(p, square, Vec(1.333144219872193e-1F));
  p = fma_(p, square, Vec(-3.3333281942032555e-1F));
  const Vec small = fma_(p * square, x, x);
  const Vec magnitude(hn::Abs(x.raw));
  const Vec e = exp2_(magnitude * 2.8853900817779268F);  // 2 log2(e)
  const Vec large = Vec(1.0F) - Vec(2.0F) / (e + Vec(1.0F));
  const Vec signed_large(hn::CopySign(large.raw, x.raw));
  return Vec(hn::IfThenElse(hn::Lt(magnitude.raw, Vec(0.625F).raw), small.raw, signed_large.raw));
}

// The same for a single number.
HWY_INLINE float exp2_(float t) { return hn::GetLane(exp2_(Vec(t)).raw); }
HWY_INLINE float max_(float a, float b) { return a > b ? a : b; }
HWY_INLINE float abs_(float x) { return __builtin_fabsf(x); }
HWY_INLINE float finite_or_(float x, float y) { return x == -__builtin_inff() ? y : x; }

}  // namespace ingot::HWY_NAMESPACE

#include "algorithm/band.h"
#include "algorithm/online_softmax.h"
#include "algorithm/score.h"
#include "variants/alibi.h"
#include "variants/dropout.h"

HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
