// Which weights of a tile dropout keeps, for every instruction set.
#include "cpu/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/dropout_tile.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "cpu/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {
namespace {

/// A vector of unsigned numbers, as dropout_numbers() wants them.
struct UnsignedVec {
  using Tag = hn::RebindToUnsigned<Vec::Tag>;
  hn::Vec<Tag> raw;

  UnsignedVec() = default;
  HWY_INLINE explicit UnsignedVec(unsigned x) : raw(hn::Set(Tag(), x)) {}
  HWY_INLINE explicit UnsignedVec(hn::Vec<Tag> x) : raw(x) {}

  friend HWY_INLINE UnsignedVec operator^(UnsignedVec a, UnsignedVec b) {
    return UnsignedVec(hn::Xor(a.raw, b.raw));
  }
};

HWY_INLINE void multiply_wide(unsigned a, UnsignedVec b, UnsignedVec& high, UnsignedVec& low) {
#if HWY_TARGET == HWY_SCALAR
  const std::uint64_t product = std::uint64_t{a} * hn::GetLane(b.raw);
  high = UnsignedVec(static_cast<unsigned>(product >> 32));
  low = UnsignedVec(static_cast<unsigned>(product));
#else
  const UnsignedVec::Tag tag;
  const hn::Repartition<std::uint64_t, UnsignedVec::Tag> wide;
  const auto factor = hn::Set(tag, a);
  const auto odd_b = hn::BitCast(tag, hn::ShiftRight<32>(hn::BitCast(wide, b.raw)));
  const auto even = hn::MulEven(factor, b.raw), odd = hn::MulEven(factor, odd_b);
  high.raw = hn::OddEven(hn::BitCast(tag, odd), hn::BitCast(tag, hn::ShiftRight<32>(even)));
  low.raw = hn::OddEven(hn::BitCast(tag, hn::ShiftLeft<32>(odd)), hn::BitCast(tag, even));
#endif
}

/// The factors of a weight whose number of 16 bits is `number`.
HWY_INLINE Vec kept_factor(const DropoutParams& p, UnsignedVec number) {
  const hn::RebindToSigned<Vec::Tag> tag;  // numbers of 16 bits are the same with a sign
  const auto last_taken = hn::Set(tag, static_cast<std::int32_t>(p.threshold) - 1);
  const auto stays = hn::Gt(hn::BitCast(tag, number.raw), last_taken);
  return Vec(hn::IfThenElseZero(hn::RebindMask(Vec::Tag(), stays), Vec(p.factor).raw));
}

HWY_INLINE UnsignedVec low_number(UnsignedVec word) {
  return UnsignedVec(hn::And(word.raw, hn::Set(UnsignedVec::Tag(), 0xFFFFU)));
}
HWY_INLINE UnsignedVec high_number(UnsignedVec word) {
  return UnsignedVec(hn::ShiftRight<16>(word.raw));
}

/// a in the lanes where `which` is 0, else b.
HWY_INLINE UnsignedVec choose(UnsignedVec which, UnsignedVec a, UnsignedVec b) {
  const auto first = hn::Eq(which.raw, hn::Zero(UnsignedVec::Tag()));
  return UnsignedVec(hn::IfThenElse(first, a.raw, b.raw));
}

HWY_INLINE UnsignedVec load_unsigned(const unsigned* from) {
  return UnsignedVec(hn::LoadU(UnsignedVec::Tag(), from));
}

void store_some(Vec x, float* to, Index count) {
  if (count >= kLanes) return x.store(to);
  alignas(64) float lanes[kLanes];
  x.store(lanes);
  std::copy_n(lanes, count, to);
}

/// A tile of factors, and the col of it that comes next.
struct KeptPlace {
  float* tile;
  Index ld, col, cols;

  HWY_INLINE void store(const DropoutParams& p, Index add, UnsignedVec number, Index row) const {
    if (col + add < 0 || col + add >= cols) return;
    kept_factor(p, number).store(tile + (col + add) * ld + row);
  }
};

/// The factors of rows r from word `upper`, of rows r + 8 from word `lower`, for two cols, or, in
/// vectors of 16 lanes, for four.
HWY_INLINE void store_square_rows(const DropoutParams& p, UnsignedVec upper, UnsignedVec lower,
                                  const KeptPlace& to) {
#if HWY_MAX_BYTES == 64
  const UnsignedVec::Tag tag;
  const UnsignedVec near(hn::ConcatLowerLower(tag, lower.raw, upper.raw));
  const UnsignedVec far(hn::ConcatUpperUpper(tag, lower.raw, upper.raw));
  to.store(p, 0, low_number(near), 0), to.store(p, 1, high_number(near), 0);
  to.store(p, 2, low_number(far), 0), to.store(p, 3, high_number(far), 0);
#else
  to.store(p, 0, low_number(upper), 0), to.store(p, 1, high_number(upper), 0);
  to.store(p, 0, low_number(lower), 8), to.store(p, 1, high_number(lower), 8);
#endif
}

/// 16 rows from a multiple of 16 on: every number that the generator makes is used.
void load_square_rows(const DropoutParams& p, const DropoutPlace& place, float* tile, Index ld) {
  // Rows r and r + 8 share their numbers: vectors of at most 8 rows, and where a vector has 16
  // lanes two pairs of cols at a time.
  constexpr Index rows = kLanes < 8 ? kLanes : 8, pairs = kLanes / rows;
  const UnsignedVec head(place.head);
  for (Index first = 0; first < 8; first += rows) {
    unsigned row_counters[kLanes];
    for (Index i = 0; i < kLanes; ++i) {
      row_counters[i] = dropout_row(place.row + first + i % rows);
    }
    const UnsignedVec row = load_unsigned(row_counters);
    for (Index square = place.col / 16 * 16; square < place.col + place.cols; square += 16) {
      for (Index c = square; c < square + 8; c += 2 * pairs) {
        unsigned cols[kLanes];
        for (Index i = 0; i < kLanes; ++i) cols[i] = dropout_col(c + i / rows * 2);
        const auto numbers = dropout_numbers(p, row, load_unsigned(cols), head);
        const KeptPlace near{tile + first, ld, c - place.col, place.cols};
        const KeptPlace far{tile + first, ld, c + 8 - place.col, place.cols};
        store_square_rows(p, numbers.word[0], numbers.word[2], near);
        store_square_rows(p, numbers.word[1], numbers.word[3], far);
      }
    }
  }
}

/// Any rows, `count` of them in at most one vector.
void load_rows_of_vector(const DropoutParams& p, const DropoutPlace& place, Index count,
                         float* tile, Index ld) {
  unsigned rows[kLanes], halves[kLanes];
  for (Index i = 0; i < kLanes; ++i) {
    rows[i] = dropout_row(place.row + i);
    halves[i] = static_cast<unsigned>((place.row + i) / 8 % 2);
  }
  const UnsignedVec row = load_unsigned(rows), half = load_unsigned(halves);
  const auto store = [&](Index c, UnsignedVec number) HWY_ATTR {
    if (c < place.col || c >= place.col + place.cols) return;
    store_some(kept_factor(p, number), tile + (c - place.col) * ld, count);
  };
  for (Index square = place.col / 16 * 16; square < place.col + place.cols; square += 16) {
    for (Index c = square; c < square + 8; c += 2) {
      const auto numbers =
          dropout_numbers(p, row, UnsignedVec(dropout_col(c)), UnsignedVec(place.head));
      const UnsignedVec near = choose(half, numbers.word[0], numbers.word[2]);
      const UnsignedVec far = choose(half, numbers.word[1], numbers.word[3]);
      store(c, low_number(near)), store(c + 1, high_number(near));
      store(c + 8, low_number(far)), store(c + 9, high_number(far));
    }
  }
}

}  // namespace

void load_kept(const DropoutParams& p, DropoutPlace place, Index count, float* tile, Index ld) {
  Index lane = 0;
  const Index first = place.row;
  for (; first % 16 == 0 && lane + 16 <= count; lane += 16) {
    place.row = first + lane;
    load_square_rows(p, place, tile + lane, ld);
  }
  for (; lane < count; lane += kLanes) {
    place.row = first + lane;
    load_rows_of_vector(p, place, std::min(kLanes, count - lane), tile + lane, ld);
  }
}

void load_kept_row(const DropoutParams& p, const DropoutPlace& place, float* to) {
  const auto far_row = static_cast<std::size_t>(place.row / 8 % 2 * 2);
  for (Index j = 0; j < place.cols; j += kLanes) {
    unsigned counters[kLanes], far[kLanes], odd[kLanes];
    for (Index i = 0; i < kLanes; ++i) {
      const Index col = place.col + j + i;
      counters[i] = dropout_col(col);
      far[i] = static_cast<unsigned>(col / 8 % 2);
      odd[i] = static_cast<unsigned>(col % 2);
    }
    const auto numbers = dropout_numbers(p, UnsignedVec(dropout_row(place.row)),
                                         load_unsigned(counters), UnsignedVec(place.head));
    const UnsignedVec word =
        choose(load_unsigned(far), numbers.word[far_row], numbers.word[far_row + 1]);
    const UnsignedVec number = choose(load_unsigned(odd), low_number(word), high_number(word));
    store_some(kept_factor(p, number), to + j, std::min(kLanes, place.cols - j));
  }
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
