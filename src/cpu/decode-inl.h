// The forward pass for few query rows that read the same keys (decoding): query rows one after
// another, lanes over dims. Keys and values are streamed once; what comes next is fetched while the
// current tile is worked on.
#if defined(INGOT_CPU_DECODE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef INGOT_CPU_DECODE_INL_H
#undef INGOT_CPU_DECODE_INL_H
#else
#define INGOT_CPU_DECODE_INL_H
#endif

#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/copy-inl.h"
#include "cpu/forward.hpp"
#include "cpu/half-inl.h"
#include "cpu/merge-inl.h"
#include "cpu/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ingot::HWY_NAMESPACE {

/// Keys or values of one tile as they lie in memory, dims next to each other.
template <class T>
struct Stream {
  const T* data;
  Index row_stride;
  Index rows_ahead;  // distance at which rows are fetched
};

/// out[r * ld_out + j] = <q row r, k row j> for r < kRows and j < cols. dims: a multiple of kLanes.
/// Keys are taken four at a time, so that their sums over lanes can be made together.
template <int kRows, class T>
HWY_INLINE void dot_rows(const float* q, Index ld_q, const Stream<T>& k, Index cols, Index dims,
                         float* out, Index ld_out) {
  constexpr int kKeys = 4;
  const Index ahead = k.rows_ahead * k.row_stride;
  for (Index j = 0; j < cols; j += kKeys) {
    const T* key[kKeys];
    HWY_UNROLL(4)
    for (int i = 0; i < kKeys; ++i) key[i] = k.data + std::min(j + i, cols - 1) * k.row_stride;
    Vec acc[kRows][kKeys];
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(4) for (int i = 0; i < kKeys; ++i) acc[r][i] = Vec(0.0F);
    }
    for (Index d = 0; d < dims; d += kLanes) {
      Vec key_part[kKeys];
      HWY_UNROLL(4)
      for (int i = 0; i < kKeys; ++i) {
        hwy::Prefetch(key[i] + ahead + d);
        key_part[i] = load_vec(key[i] + d);
      }
      HWY_UNROLL(4)
      for (int r = 0; r < kRows; ++r) {
        const Vec q_part = Vec::load(q + r * ld_q + d);
        HWY_UNROLL(4)
        for (int i = 0; i < kKeys; ++i) acc[r][i] = fma_(q_part, key_part[i], acc[r][i]);
      }
    }
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      float sums[kKeys];
      store_sums(acc[r][0], acc[r][1], acc[r][2], acc[r][3], sums);
      std::copy_n(sums, std::min<Index>(kKeys, cols - j), out + r * ld_out + j);
    }
  }
}

/// o[r * ld_o + d] += sum over j in [first, end) of p[r * ld_p + j] * v[j][d], r < kRows, d < kVecs
/// * kLanes.
template <int kRows, int kVecs, class T>
HWY_INLINE void add_weighted(const float* p, Index ld_p, const Stream<T>& v, Index first, Index end,
                             float* o, Index ld_o) {
  Vec acc[kRows][kVecs];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8) for (int i = 0; i < kVecs; ++i) acc[r][i] = Vec::load(o + r * ld_o + i * kLanes);
  }
  const Index ahead = v.rows_ahead * v.row_stride;
  for (Index j = first; j < end; ++j) {
    const T* const row = v.data + j * v.row_stride;
    Vec part[kVecs];
    HWY_UNROLL(8)
    for (int i = 0; i < kVecs; ++i) {
      hwy::Prefetch(row + ahead + i * kLanes);
      part[i] = load_vec(row + i * kLanes);
    }
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const Vec weight(p[r * ld_p + j]);
      HWY_UNROLL(8) for (int i = 0; i < kVecs; ++i) acc[r][i] = fma_(weight, part[i], acc[r][i]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8) for (int i = 0; i < kVecs; ++i) acc[r][i].store(o + r * ld_o + i * kLanes);
  }
}

// Vectors of O that stay in registers, for one row and for four.
#if HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64
inline constexpr int kVecsOfOneRow = 8, kVecsOfFourRows = 4;
#else
inline constexpr int kVecsOfOneRow = 4, kVecsOfFourRows = 2;
#endif

/// As above for any number of dims, a multiple of kLanes.
template <int kRows, class T>
HWY_INLINE void add_weighted_rows(const float* p, Index ld_p, Stream<T> v, Index first, Index end,
                                  Index dims, float* o, Index ld_o) {
  constexpr int kVecs = kRows == 1 ? kVecsOfOneRow : kVecsOfFourRows;
  Index d = 0;
  for (; d + kVecs * kLanes <= dims; d += kVecs * kLanes, v.data += kVecs * kLanes) {
    add_weighted<kRows, kVecs>(p, ld_p, v, first, end, o + d, ld_o);
  }
  for (; d < dims; d += kLanes, v.data += kLanes)
    add_weighted<kRows, 1>(p, ld_p, v, first, end, o + d, ld_o);
}

class DecodeUnit {
 public:
  DecodeUnit(const ForwardCall& call, Index unit, float* scratch);
  void run();

 private:
  void load_queries();
  template <class T>
  void score_rows(const Stream<T>& k, Index cols);
  void scores(const ConstRows& k, Index col, Index cols);
  template <class Score>
  Vec value_row(Index r, Index col, Index cols);
  bool weigh_row(Index r, Index col, Index cols);
  template <class T>
  void add_rows(const Stream<T>& v, Index col, Index cols, bool full);
  template <class T>
  void add_shown(const Stream<T>& v, Index r, Index first, Index end);
  void add_values(const ConstRows& v, Index col, Index cols, bool full);
  void finish_row(Index r);

  Index row_of(Index r) const { return block_.row + r % block_.rows; }
  Index head_of(Index r) const { return block_.head + r / block_.rows; }

  const ForwardCall& call_;
  const DecodeLayout& layout_;
  const Index unit_;
  const RowBlock block_;
  const PartReader parts_;
  const Band band_;
  const ScoreFactors factors_;
  const PartTiles tiles_;
  float *const q_, *const o_, *const scores_, *const row_max_, *const row_sum_, *const k_copy_,
                                                                                    *const v_copy_;
};

inline DecodeUnit::DecodeUnit(const ForwardCall& call, Index unit, float* scratch)
    : call_(call),
      layout_(call.decode_layout),
      unit_(unit),
      block_(row_block(call.problem, call.grid, call.config.block_m, unit / call.grid.split_k)),
      parts_(call.problem, call.args.parts, block_.batch),
      band_(parts_.band()),
      factors_(make_score_factors(band_.p)),
      tiles_(layout_.parts, scratch),
      q_(scratch + layout_.q),
      o_(scratch + layout_.o),
      scores_(scratch + layout_.scores),
      row_max_(scratch + layout_.row_max),
      row_sum_(scratch + layout_.row_sum),
      k_copy_(scratch + layout_.k),
      v_copy_(scratch + layout_.v) {}

inline void DecodeUnit::run() {
  load_queries();
  const Config& c = call_.config;
  const Index chunk = unit_ % call_.grid.split_k * call_.grid.keys_per_chunk;
  const Index begin = std::max(band_.col_begin(block_.row), chunk);
  const Index end =
      std::min(band_.col_end(block_.row + block_.rows - 1), chunk + call_.grid.keys_per_chunk);
  const Index head_kv = block_.head / (call_.problem.num_heads / call_.problem.num_heads_kv);
  const ConstRows k = head_rows(call_.args.k, call_.problem.k, block_.batch, head_kv);
  const ConstRows v = head_rows(call_.args.v, call_.problem.v, block_.batch, head_kv);
  for (Index col = begin; col < end; col += c.block_n) {
    throw_if_cancelled(call_.args.submission);
    const Index cols = std::min(c.block_n, end - col);
    scores(k, col, cols);
    bool full = true;
    for (Index r = 0; r < block_.lanes(); ++r) full = weigh_row(r, col, cols) && full;
    add_values(v, col, cols, full);
  }
  for (Index r = 0; r < block_.lanes(); ++r) finish_row(r);
}

inline void DecodeUnit::load_queries() {
  const Config& c = call_.config;
  for (Index r = 0; r < block_.lanes(); ++r) {
    const ConstRows q = head_rows(call_.args.q, call_.problem.q, block_.batch, head_of(r));
    load_rows(q, {row_of(r), 1, c.head_dim}, q_ + r * layout_.ld_q, layout_.ld_q, layout_.ld_q);
  }
  std::fill_n(o_, block_.lanes() * layout_.ld_v, 0.0F);
  const bool first_chunk = unit_ % call_.grid.split_k == 0;  // a row's sink counts once
  for (Index r = 0; r < block_.lanes(); ++r) {
    row_max_[r] = first_chunk ? parts_.sink(head_of(r)) : kMinusInfinity;
    row_sum_[r] = row_max_[r] == kMinusInfinity ? 0.0F : 1.0F;
  }
}

inline constexpr Index kBytesAhead = 6144;

// Calls f with the tile's rows: where they lie if whole vectors can be read there, else as an f32
// copy.
template <class F>
HWY_INLINE void with_stream(const ConstRows& rows, Index col, Index cols, Index dims, float* copy,
                            Index ld, F&& f) {
  const Index ahead = std::max<Index>(1, kBytesAhead / (dims * size_bytes(rows.dtype)));
  const Index offset = col * rows.row_stride;
  if (rows.dim_stride != 1 || dims % kLanes != 0) {
    load_rows(rows, {col, cols, dims}, copy, ld, ld);
    f(Stream<float>{copy, ld, 0});
  } else if (rows.dtype == Dtype::f32) {
    f(Stream<float>{static_cast<const float*>(rows.data) + offset, rows.row_stride, ahead});
  } else if (rows.dtype == Dtype::bf16) {
    f(Stream<Bf16>{static_cast<const Bf16*>(rows.data) + offset, rows.row_stride, ahead});
  } else {
    f(Stream<F16>{static_cast<const F16*>(rows.data) + offset, rows.row_stride, ahead});
  }
}

template <class T>
void DecodeUnit::score_rows(const Stream<T>& k, Index cols) {
  const Index ld = layout_.ld_s;
  Index r = 0;
  for (; r + 4 <= block_.lanes(); r += 4) {
    dot_rows<4>(q_ + r * layout_.ld_q, layout_.ld_q, k, cols, layout_.ld_q, scores_ + r * ld, ld);
  }
  for (; r < block_.lanes(); ++r) {
    dot_rows<1>(q_ + r * layout_.ld_q, layout_.ld_q, k, cols, layout_.ld_q, scores_ + r * ld, ld);
  }
}

inline void DecodeUnit::scores(const ConstRows& k, Index col, Index cols) {
  with_stream(k, col, cols, call_.config.head_dim, k_copy_, layout_.ld_q,
              [&](const auto& stream) HWY_ATTR { score_rows(stream, cols); });
}

// Scores of one row become values in the base-2 domain, -inf for what the row does not see. Returns
// the largest of every lane.
template <class Score>
Vec DecodeUnit::value_row(Index r, Index col, Index cols) {
  const Vec first(static_cast<float>(clamp_index(band_.col_begin(row_of(r)) - col, 0, cols)));
  const Vec end(static_cast<float>(clamp_index(band_.col_end(row_of(r)) - col, 0, cols)));
  float* const row = scores_ + r * layout_.ld_s;
  const PartTiles parts = tiles_.from(r * layout_.ld_s);
  const Vec minus_infinity(kMinusInfinity);
  Vec highest = minus_infinity;
  for (Index j = 0; j < cols; j += kLanes) {
    Vec value = value_log2<Score>(factors_, Vec::load(row + j));
    if (parts.added != nullptr) value = fma_(Vec::load(parts.added + j), Vec(kLog2E), value);
    if (parts.seen != nullptr) value = where_set(Vec::load(parts.seen + j), value, minus_infinity);
    const Vec seen =
        where_inside(counted_from(static_cast<float>(j)), first, end, value, minus_infinity);
    seen.store(row + j);
    highest = max_(highest, seen);
  }
  return highest;
}

// Scores of one row become weights; O and the sum so far are corrected. Does the row see the whole
// tile?
inline bool DecodeUnit::weigh_row(Index r, Index col, Index cols) {
  const PartTiles parts = tiles_.from(r * layout_.ld_s);
  if (call_.problem.parts.any()) parts_.load_row(head_of(r), row_of(r), col, cols, parts);
  float* const row = scores_ + r * layout_.ld_s;
  const Vec highest = call_.problem.softcap > 0.0F ? value_row<CappedScore>(r, col, cols)
                                                   : value_row<PlainScore>(r, col, cols);
  OnlineSoftmax<float> softmax{row_max_[r], row_sum_[r]};
  const float correction = softmax.raise_max(largest_lane(highest));
  const Vec offset(softmax.offset());
  Vec sum(0.0F);
  for (Index j = 0; j < cols; j += kLanes) {
    const Vec p = exp2_(Vec::load(row + j) - offset);
    sum = sum + p;
    (parts.kept == nullptr ? p : p * Vec::load(parts.kept + j)).store(row + j);
  }
  row_max_[r] = softmax.row_max;
  row_sum_[r] = softmax.row_sum + sum_of_lanes(sum);
  if (correction != 1.0F) {
    float* const o = o_ + r * layout_.ld_v;
    for (Index d = 0; d < layout_.ld_v; d += kLanes) (Vec::load(o + d) * correction).store(o + d);
  }
  const bool in_band = band_.col_begin(row_of(r)) <= col && band_.col_end(row_of(r)) >= col + cols;
  return in_band && parts_.look_at_mask({0, 1, head_of(r), row_of(r)}, col, cols) == Shown::all;
}

// O += P V. Where some rows do not see the whole tile, row by row over what it sees: 0 times an Inf
// or NaN that is not visible must not reach it.
template <class T>
void DecodeUnit::add_rows(const Stream<T>& v, Index col, Index cols, bool full) {
  const Index ld = layout_.ld_v;
  Index r = 0;
  for (; full && r + 4 <= block_.lanes(); r += 4) {
    add_weighted_rows<4>(scores_ + r * layout_.ld_s, layout_.ld_s, v, 0, cols, ld, o_ + r * ld, ld);
  }
  for (; r < block_.lanes(); ++r) {
    const Index first = clamp_index(band_.col_begin(row_of(r)) - col, 0, cols);
    const Index end = clamp_index(band_.col_end(row_of(r)) - col, 0, cols);
    if (full || tiles_.seen == nullptr) {
      add_weighted_rows<1>(scores_ + r * layout_.ld_s, layout_.ld_s, v, first, end, ld, o_ + r * ld,
                           ld);
    } else {
      add_shown(v, r, first, end);
    }
  }
}

// O += P V of one row, over the keys that the mask shows: one stretch of them after another.
template <class T>
void DecodeUnit::add_shown(const Stream<T>& v, Index r, Index first, Index end) {
  const float* const seen = tiles_.seen + r * layout_.ld_s;
  for (Index j = first; j < end;) {
    Index stop = j;
    while (stop < end && seen[stop] != 0.0F) ++stop;
    add_weighted_rows<1>(scores_ + r * layout_.ld_s, layout_.ld_s, v, j, stop, layout_.ld_v,
                         o_ + r * layout_.ld_v, layout_.ld_v);
    for (j = stop; j < end && seen[j] == 0.0F;) ++j;
  }
}

inline void DecodeUnit::add_values(const ConstRows& v, Index col, Index cols, bool full) {
  with_stream(v, col, cols, call_.config.head_dim_v, v_copy_, layout_.ld_v,
              [&](const auto& stream) HWY_ATTR { add_rows(stream, col, cols, full); });
}

inline void DecodeUnit::finish_row(Index r) {
  const Index dims = call_.config.head_dim_v;
  float* const o = o_ + r * layout_.ld_v;
  if (call_.partials != nullptr) {
    float* const to =
        call_.partials + (unit_ * call_.config.block_m + r) * partial_floats(call_.config);
    std::copy_n(o, dims, to);
    to[dims] = row_max_[r];
    to[dims + 1] = row_sum_[r];
    return;
  }
  const float factor = weight_factor(row_sum_[r]);
  for (Index d = 0; d < layout_.ld_v; d += kLanes) (Vec::load(o + d) * factor).store(o + d);
  const Rows to = head_rows(call_.args.o, call_.problem.o, block_.batch, head_of(r));
  store_rows(o, layout_.ld_v, to, {row_of(r), 1, dims});
  store_lse(call_, block_.batch, head_of(r), row_of(r), row_max_[r], row_sum_[r]);
}

}  // namespace ingot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
