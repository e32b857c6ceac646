// <metal_simdgroup_matrix>: an 8x8 matrix spread over a simdgroup, two elements a thread.
#pragma once
#include "softmetal_simdgroup.h"

// What runs for all lanes must not be left to itself, where its accesses would be checked.
#define SOFTMETAL_INLINE inline __attribute__((always_inline))

namespace softmetal {

/// Lane l holds (row, column) and (row, column + 1): the layout of Apple's GPUs so far.
struct Place {
  int row, column;
};
constexpr Place place_of(int lane) {
  const int quad = lane / 4;
  return {(quad & 4) + lane / 2 % 4, (quad & 2) * 2 + lane % 2 * 2};
}

/// One product of a lane: its two elements of A and B, and where those of C and D are.
using MatrixOp = void (*)(void* const* lanes, u32 mask, u64 offset);
struct Mma {
  u64 a, b;       // bits
  const void* c;  // null: zero
  void* d;
  MatrixOp op;
};
/// Products that a thread makes one after another, without looking at the results between them, are
/// met for once; the compiler driver fills this in.
struct MmaBatch {
  u64 count;
  Mma products[64];
};

using Row8 = float __attribute__((ext_vector_type(8)));
template <typename T>
using Row8Of = T __attribute__((ext_vector_type(8)));

/// The lane that holds columns 2 * pair and 2 * pair + 1 of a row.
constexpr int lane_at(int row, int pair) {
  return (row & 4) << 2 | (row & 3) << 1 | (pair & 2) << 2 | (pair & 1);
}

template <typename T>
SOFTMETAL_INLINE Row8 row_of(metal::vec<T, 2> a, metal::vec<T, 2> b, metal::vec<T, 2> c,
                             metal::vec<T, 2> d) {
  const auto left = __builtin_shufflevector(a, b, 0, 1, 2, 3);
  const auto right = __builtin_shufflevector(c, d, 0, 1, 2, 3);
  return __builtin_convertvector(__builtin_shufflevector(left, right, 0, 1, 2, 3, 4, 5, 6, 7),
                                 Row8);
}

struct Products {
  void* const* lanes;
  u64 offset;
  SOFTMETAL_INLINE const Mma& of(int lane) const {
    return *reinterpret_cast<const Mma*>(static_cast<const char*>(lanes[lane]) + offset);
  }
};

/// Row `row` of the operand whose bits are in `member`.
template <typename T>
SOFTMETAL_INLINE Row8 gather(const Products& p, u64 Mma::* member, int row) {
  metal::vec<T, 2> v[4];
  for (int i = 0; i < 4; ++i)
    __builtin_memcpy(&v[i], &(p.of(lane_at(row, i)).*member), sizeof v[i]);
  return row_of<T>(v[0], v[1], v[2], v[3]);
}
template <typename T>
SOFTMETAL_INLINE Row8 gather_sum(const Products& p, int row) {
  metal::vec<T, 2> v[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&v[i], p.of(lane_at(row, i)).c, sizeof v[i]);
  return row_of<T>(v[0], v[1], v[2], v[3]);
}

/// D = A B + C, products and sums in float, k ascending.
template <typename D, typename A, typename B, typename C, bool add>
SOFTMETAL_INLINE void multiply_full(const Products& p, u32 mask) {
  alignas(32) float a[8][8];
  Row8 b[8];
#pragma clang loop unroll(full)
  for (int r = 0; r < 8; ++r) {
    const Row8 row = gather<A>(p, &Mma::a, r);
    __builtin_memcpy(a[r], &row, sizeof row);
    b[r] = gather<B>(p, &Mma::b, r);
  }
  Row8 sums[8];
#pragma clang loop unroll(full)
  for (int r = 0; r < 8; ++r) {
    Row8 sum = 0;
    if constexpr (add) sum = gather_sum<C>(p, r);
#pragma clang loop unroll(full)
    for (int k = 0; k < 8; ++k) sum = __builtin_elementwise_fma(Row8(a[r][k]), b[k], sum);
    sums[r] = sum;
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < 8; ++r) {
    const Row8Of<D> out = __builtin_convertvector(sums[r], Row8Of<D>);
    for (int i = 0; i < 4; ++i) {
      const int lane = lane_at(r, i);
      const metal::vec<D, 2> v{out[2 * i], out[2 * i + 1]};
      if (mask >> lane & 1) __builtin_memcpy(p.of(lane).d, &v, sizeof v);
    }
  }
}

template <typename D, typename A, typename B, typename C, bool add>
void multiply(void* const* lanes, u32 mask, u64 offset) {
  softmetal_runtime->count_matrix(1);
  if (mask == ~0u) return multiply_full<D, A, B, C, add>({lanes, offset}, ~0u);
  // An incomplete simdgroup is an error that has been reported; missing threads count as zero.
  static constexpr double zero = 0;
  const Mma none{0, 0, &zero, nullptr, nullptr};
  Mma records[32];
  void* filled[32];
  for (int i = 0; i < 32; ++i) {
    records[i] = (mask >> i & 1) ? Products{lanes, offset}.of(i) : none;
    filled[i] = &records[i];
  }
  multiply_full<D, A, B, C, add>({filled, 0}, mask);
}

inline void run_product(void* const* lanes, u32 mask) {
  const Products p{lanes, 0};
  p.of(lowest(mask)).op(lanes, mask, 0);
}
inline void run_batch(void* const* lanes, u32 mask) {
  const auto& first = *static_cast<const MmaBatch*>(lanes[lowest(mask)]);
  for (u64 i = 0; i < first.count; ++i) {
    first.products[i].op(lanes, mask, __builtin_offsetof(MmaBatch, products) + i * sizeof(Mma));
  }
}

template <typename T>
u64 bits_of_pair(metal::vec<T, 2> v) {
  if constexpr (sizeof v == 8) {
    return __builtin_bit_cast(u64, v);
  } else {
    return __builtin_bit_cast(u32, v);
  }
}

}  // namespace softmetal

// One product. The driver finds calls of this name in the compiled code and makes batches of them.
extern "C" __attribute__((used, noinline)) void softmetal_mma(void* d, const void* c,
                                                              softmetal_abi::u64 a,
                                                              softmetal_abi::u64 b,
                                                              softmetal::MatrixOp op,
                                                              softmetal_abi::u32 site) {
  softmetal::Mma record{a, b, c, d, op};
  softmetal::meet(&record, &softmetal::run_product, site, softmetal_abi::collective_full);
}
extern "C" __attribute__((used, noinline)) void softmetal_mma_batch(softmetal::MmaBatch* batch,
                                                                    softmetal_abi::u32 site) {
  softmetal::meet(batch, &softmetal::run_batch, site, softmetal_abi::collective_full);
}

namespace softmetal {

inline void present(void* const*, u32) {}
/// Loads and stores need no meeting to work; with checks they hold one to see that all take part.
inline void all_present([[maybe_unused]] u32 site) {
#ifdef SOFTMETAL_INSTRUMENTED
  meet(nullptr, &present, site, softmetal_abi::collective_full);
#endif
}

}  // namespace softmetal

namespace metal {

template <typename T, int Cols, int Rows = Cols>
struct simdgroup_matrix {
  static_assert(Cols == 8 && Rows == 8, "simdgroup_matrix is 8x8");
  static_assert(softmetal::is_floating<T>, "simdgroup_matrix holds float, half or bfloat");
  using storage_type = vec<T, 2>;
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T diagonal) {
    const auto at = softmetal::place_of(softmetal::own_lane());
    softmetal_lanes = storage_type{at.row == at.column ? diagonal : T(0),
                                   at.row == at.column + 1 ? diagonal : T(0)};
  }
  thread storage_type& thread_elements() { return softmetal_lanes; }
  const thread storage_type& thread_elements() const { return softmetal_lanes; }

 private:
  storage_type softmetal_lanes;
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <typename T, int C = 8, int R = 8>
simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, C, R> m;
  m.thread_elements() = vec<T, 2>{value, value};
  return m;
}
template <typename T, int C = 8, int R = 8>
simdgroup_matrix<T, C, R> make_diagonal_simdgroup_matrix(T value) {
  simdgroup_matrix<T, C, R> m;
  const auto at = softmetal::place_of(softmetal::own_lane());
  m.thread_elements() =
      vec<T, 2>{at.row == at.column ? value : T(0), at.row == at.column + 1 ? value : T(0)};
  return m;
}

#define SOFTMETAL_MATRIX_MEMORY(space)                                                            \
  template <typename T>                                                                           \
  void simdgroup_load(thread simdgroup_matrix<T, 8, 8>& m, const space T* from,                   \
                      ulong elements_per_row = 8, ulong2 origin = 0, bool transpose = false,      \
                      uint site = SOFTMETAL_SITE) {                                               \
    softmetal::all_present(site);                                                                 \
    const auto at = softmetal::place_of(softmetal::own_lane());                                   \
    from += long(origin.y) * long(elements_per_row) + long(origin.x);                             \
    const long row = long(elements_per_row);                                                      \
    m.thread_elements() =                                                                         \
        transpose                                                                                 \
            ? vec<T, 2>{from[at.column * row + at.row], from[(at.column + 1) * row + at.row]}     \
            : vec<T, 2>{from[at.row * row + at.column], from[at.row * row + at.column + 1]};      \
  }                                                                                               \
  template <typename T>                                                                           \
  void simdgroup_store(simdgroup_matrix<T, 8, 8> m, space T* to, ulong elements_per_row = 8,      \
                       ulong2 origin = 0, bool transpose = false, uint site = SOFTMETAL_SITE) {   \
    softmetal::all_present(site);                                                                 \
    const auto at = softmetal::place_of(softmetal::own_lane());                                   \
    to += long(origin.y) * long(elements_per_row) + long(origin.x);                               \
    const long row = long(elements_per_row);                                                      \
    to[transpose ? at.column * row + at.row : at.row * row + at.column] = m.thread_elements()[0]; \
    to[transpose ? (at.column + 1) * row + at.row : at.row * row + at.column + 1] =               \
        m.thread_elements()[1];                                                                   \
  }
SOFTMETAL_MATRIX_MEMORY(device)
SOFTMETAL_MATRIX_MEMORY(threadgroup)
#undef SOFTMETAL_MATRIX_MEMORY

template <typename D, typename A, typename B, typename C>
void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>& d,
                                   const thread simdgroup_matrix<A, 8, 8>& a,
                                   const thread simdgroup_matrix<B, 8, 8>& b,
                                   const thread simdgroup_matrix<C, 8, 8>& c,
                                   uint site = SOFTMETAL_SITE) {
  softmetal_mma(&d.thread_elements(), &c.thread_elements(),
                softmetal::bits_of_pair<A>(a.thread_elements()),
                softmetal::bits_of_pair<B>(b.thread_elements()),
                &softmetal::multiply<D, A, B, C, true>, site);
}
template <typename D, typename A, typename B>
void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>& d,
                        const thread simdgroup_matrix<A, 8, 8>& a,
                        const thread simdgroup_matrix<B, 8, 8>& b, uint site = SOFTMETAL_SITE) {
  softmetal_mma(&d.thread_elements(), nullptr, softmetal::bits_of_pair<A>(a.thread_elements()),
                softmetal::bits_of_pair<B>(b.thread_elements()),
                &softmetal::multiply<D, A, B, D, false>, site);
}
template <typename A, typename B>
simdgroup_matrix<A, 8, 8> operator*(simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b) {
  simdgroup_matrix<A, 8, 8> d;
  simdgroup_multiply(d, a, b);
  return d;
}

}  // namespace metal
