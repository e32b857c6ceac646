// <metal_simdgroup_matrix>: an 8x8 matrix spread over a simdgroup, two elements a thread.
#pragma once
#include "softmetal_simdgroup.h"

namespace softmetal {

/// Lane l holds (row, column) and (row, column + 1): the layout of Apple's GPUs so far.
struct Place {
  int row, column;
};
constexpr Place place_of(int lane) {
  const int quad = lane / 4;
  return {(quad & 4) + lane / 2 % 4, (quad & 2) * 2 + lane % 2 * 2};
}

struct Mma {
  const void* a;
  const void* b;
  const void* c;  // null: zero
  void* d;
};
using Row8 = float __attribute__((ext_vector_type(8)));
using Pair = float __attribute__((ext_vector_type(2)));

template <typename T>
void gather(void* const* lanes, const void* Mma::* member, Row8* rows) {
  for (int i = 0; i < 32; ++i) {
    const Place at = place_of(i);
    const auto v = *static_cast<const metal::vec<T, 2>*>(static_cast<Mma*>(lanes[i])->*member);
    const Pair f = __builtin_convertvector(v, Pair);
    __builtin_memcpy(reinterpret_cast<float*>(rows) + at.row * 8 + at.column, &f, sizeof f);
  }
}

/// D = A B + C, products and sums in float, k ascending.
template <typename D, typename A, typename B, typename C, bool add>
void multiply(void* const* lanes, u32 mask) {
  softmetal_runtime->count_matrix(1);
  Row8 a[8], b[8], c[8] = {};
  if (mask != ~0u) {
    // An incomplete simdgroup is an error that has been reported; missing threads count as zero.
    static constexpr double zero = 0;
    Mma none{&zero, &zero, &zero, nullptr};
    void* filled[32];
    for (int i = 0; i < 32; ++i) filled[i] = (mask >> i & 1) ? lanes[i] : &none;
    gather<A>(filled, &Mma::a, a);
    gather<B>(filled, &Mma::b, b);
    if constexpr (add) gather<C>(filled, &Mma::c, c);
  } else {
    gather<A>(lanes, &Mma::a, a);
    gather<B>(lanes, &Mma::b, b);
    if constexpr (add) gather<C>(lanes, &Mma::c, c);
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < 8; ++r) {
    Row8 sum = c[r];
#pragma clang loop unroll(full)
    for (int k = 0; k < 8; ++k) sum = __builtin_elementwise_fma(Row8(a[r][k]), b[k], sum);
    c[r] = sum;
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const Place at = place_of(i);
    Pair f;
    __builtin_memcpy(&f, reinterpret_cast<const float*>(c) + at.row * 8 + at.column, sizeof f);
    *static_cast<metal::vec<D, 2>*>(static_cast<Mma*>(lanes[i])->d) =
        __builtin_convertvector(f, metal::vec<D, 2>);
  }
}

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
void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                   simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c,
                                   uint site = SOFTMETAL_SITE) {
  softmetal::Mma record{&a, &b, &c, &d};
  softmetal::meet(&record, &softmetal::multiply<D, A, B, C, true>, site,
                  softmetal_abi::collective_full);
}
template <typename D, typename A, typename B>
void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                        simdgroup_matrix<B, 8, 8> b, uint site = SOFTMETAL_SITE) {
  softmetal::Mma record{&a, &b, nullptr, &d};
  softmetal::meet(&record, &softmetal::multiply<D, A, B, D, false>, site,
                  softmetal_abi::collective_full);
}
template <typename A, typename B>
simdgroup_matrix<A, 8, 8> operator*(simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b) {
  simdgroup_matrix<A, 8, 8> d;
  simdgroup_multiply(d, a, b);
  return d;
}

}  // namespace metal
