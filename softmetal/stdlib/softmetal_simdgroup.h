// <metal_simdgroup>, <metal_quadgroup>, barriers: operations in which the threads of a simdgroup
// meet. Each thread hands over a record; the last one to come computes for all of them.
#pragma once
#include "softmetal_integer.h"

namespace softmetal {
using softmetal_abi::u32;
using softmetal_abi::u64;

inline void meet(void* record, softmetal_abi::CollectiveOp op, u32 site,
                 u32 kind = softmetal_abi::collective_any) {
  softmetal_runtime->collective(record, op, site, kind);
}
inline int lowest(u32 mask) { return __builtin_ctz(mask); }

struct Sum {
  template <typename T>
  static T of(T a, T b) {
    return T(a + b);
  }
};
struct Product {
  template <typename T>
  static T of(T a, T b) {
    return T(a * b);
  }
};
struct Least {
  template <typename T>
  static T of(T a, T b) {
    return metal::min(a, b);
  }
};
struct Most {
  template <typename T>
  static T of(T a, T b) {
    return metal::max(a, b);
  }
};
struct And {
  template <typename T>
  static T of(T a, T b) {
    return T(a & b);
  }
};
struct Or {
  template <typename T>
  static T of(T a, T b) {
    return T(a | b);
  }
};
struct Xor {
  template <typename T>
  static T of(T a, T b) {
    return T(a ^ b);
  }
};

/// Combines within runs of `width` lanes; pairs first, as a butterfly of shuffles would.
template <typename T, typename F, int width>
void reduce(void* const* lanes, u32 mask) {
  for (int base = 0; base < 32; base += width) {
    T v[width];
    int n = 0;
    for (int i = 0; i < width; ++i) {
      if (mask >> (base + i) & 1) v[n++] = *static_cast<T*>(lanes[base + i]);
    }
    if (n == 0) continue;
    for (int step = 1; step < n; step *= 2) {
      for (int i = 0; i + step < n; i += 2 * step) v[i] = F::of(v[i], v[i + step]);
    }
    for (int i = 0; i < width; ++i) {
      if (mask >> (base + i) & 1) *static_cast<T*>(lanes[base + i]) = v[0];
    }
  }
}
template <typename T, typename F, int width, bool inclusive>
void scan(void* const* lanes, u32 mask) {
  for (int base = 0; base < 32; base += width) {
    T sum{};
    bool first = true;
    for (int i = base; i < base + width; ++i) {
      if (!(mask >> i & 1)) continue;
      T& v = *static_cast<T*>(lanes[i]);
      const T own = v;
      const T next = first ? own : F::of(sum, own);
      v = inclusive ? next : first ? T(same<F, Product> ? 1 : 0) : sum;
      sum = next;
      first = false;
    }
  }
}

template <typename T>
struct Shuffle {
  T value;
  T fill;
  T result;
  int from;  // lane, or below 0 / beyond 63: take fill of lane from & 31
  u32 site;
};
template <typename T>
void shuffle(void* const* lanes, u32 mask) {
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    auto& own = *static_cast<Shuffle<T>*>(lanes[i]);
    const int from = own.from & 31;
    if (!(mask >> from & 1)) {
      softmetal_runtime->inactive_lane(own.site, u32(i));
      own.result = T{};
      continue;
    }
    const auto& other = *static_cast<Shuffle<T>*>(lanes[from]);
    own.result = own.from >= 64 ? other.fill : other.value;
  }
}
template <typename T>
T shuffle_from(T value, T fill, int from, u32 site) {
  Shuffle<T> record{value, fill, T{}, from, site};
  meet(&record, &shuffle<T>, site);
  return record.result;
}
template <typename T, typename F, int width>
T reduced(T x, u32 site) {
  meet(&x, &reduce<T, F, width>, site);
  return x;
}
template <typename T, typename F, int width, bool inclusive>
T scanned(T x, u32 site) {
  meet(&x, &scan<T, F, width, inclusive>, site);
  return x;
}

struct Vote {
  bool value;
  u32 ballot;
};
inline void vote(void* const* lanes, u32 mask) {
  u32 ballot = 0;
  for (int i = 0; i < 32; ++i) {
    if (mask >> i & 1) ballot |= u32(static_cast<Vote*>(lanes[i])->value) << i;
  }
  for (int i = 0; i < 32; ++i) {
    if (mask >> i & 1) *static_cast<Vote*>(lanes[i]) = {((mask >> i) & 1) != 0, ballot};
  }
}
inline void vote_mask(void* const* lanes, u32 mask) {
  for (int i = 0; i < 32; ++i) {
    if (mask >> i & 1) static_cast<Vote*>(lanes[i])->ballot = mask;
  }
}
inline u32 ballot_of(bool b, u32 site) {
  Vote record{b, 0};
  meet(&record, &vote, site);
  return record.ballot;
}
inline u32 active_of(u32 site) {
  Vote record{true, 0};
  meet(&record, &vote_mask, site);
  return record.ballot;
}
}  // namespace softmetal

// The same for the whole life of a thread, so the compiler need not ask twice.
extern "C" __attribute__((used, noinline, const)) softmetal_abi::u32 softmetal_lane() {
  return softmetal_runtime->lane();
}
namespace softmetal {
inline int own_lane() { return int(softmetal_lane()); }
}  // namespace softmetal

namespace metal {

/// Messages of kernels are not printed; the calls compile and do nothing.
struct os_log {
  constexpr os_log(...) {}
  template <typename... A>
  void log(A...) const {}
  template <typename... A>
  void log_debug(A...) const {}
  template <typename... A>
  void log_info(A...) const {}
  template <typename... A>
  void log_error(A...) const {}
  template <typename... A>
  void log_fault(A...) const {}
};

enum class mem_flags {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
  mem_object_data = 16
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
enum memory_order {
  memory_order_relaxed,
  memory_order_acquire,
  memory_order_release,
  memory_order_acq_rel,
  memory_order_seq_cst
};
enum thread_scope {
  thread_scope_thread,
  thread_scope_simdgroup,
  thread_scope_threadgroup,
  thread_scope_device
};

inline void threadgroup_barrier(mem_flags flags, softmetal::u32 site = SOFTMETAL_SITE) {
  softmetal_runtime->barrier(softmetal::u32(flags), site);
}
inline void threadgroup_barrier(mem_flags flags, memory_order,
                                softmetal::u32 site = SOFTMETAL_SITE) {
  softmetal_runtime->barrier(softmetal::u32(flags), site);
}
inline void simdgroup_barrier(mem_flags flags, softmetal::u32 site = SOFTMETAL_SITE) {
  softmetal::meet(nullptr, nullptr, site,
                  softmetal_abi::collective_barrier | softmetal::u32(flags)
                                                          << softmetal_abi::flags_shift);
}

struct simd_vote {
  using vote_t = ulong;
  explicit constexpr simd_vote(vote_t v = 0) : bits(v) {}
  constexpr explicit operator vote_t() const { return bits; }
  constexpr bool all() const { return (bits & 0xffffffffu) == 0xffffffffu; }
  constexpr bool any() const { return bits != 0; }

 private:
  vote_t bits;
};

#define SOFTMETAL_GROUP_OPERATIONS(prefix, width)                                              \
  template <typename T>                                                                        \
  T prefix##_sum(T x, uint site = SOFTMETAL_SITE) {                                            \
    return softmetal::reduced<T, softmetal::Sum, width>(x, site);                              \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_product(T x, uint site = SOFTMETAL_SITE) {                                        \
    return softmetal::reduced<T, softmetal::Product, width>(x, site);                          \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_min(T x, uint site = SOFTMETAL_SITE) {                                            \
    return softmetal::reduced<T, softmetal::Least, width>(x, site);                            \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_max(T x, uint site = SOFTMETAL_SITE) {                                            \
    return softmetal::reduced<T, softmetal::Most, width>(x, site);                             \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_and(T x, uint site = SOFTMETAL_SITE) {                                            \
    return softmetal::reduced<T, softmetal::And, width>(x, site);                              \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_or(T x, uint site = SOFTMETAL_SITE) {                                             \
    return softmetal::reduced<T, softmetal::Or, width>(x, site);                               \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_xor(T x, uint site = SOFTMETAL_SITE) {                                            \
    return softmetal::reduced<T, softmetal::Xor, width>(x, site);                              \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_prefix_inclusive_sum(T x, uint site = SOFTMETAL_SITE) {                           \
    return softmetal::scanned<T, softmetal::Sum, width, true>(x, site);                        \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_prefix_exclusive_sum(T x, uint site = SOFTMETAL_SITE) {                           \
    return softmetal::scanned<T, softmetal::Sum, width, false>(x, site);                       \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_prefix_inclusive_product(T x, uint site = SOFTMETAL_SITE) {                       \
    return softmetal::scanned<T, softmetal::Product, width, true>(x, site);                    \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_prefix_exclusive_product(T x, uint site = SOFTMETAL_SITE) {                       \
    return softmetal::scanned<T, softmetal::Product, width, false>(x, site);                   \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle(T x, ushort lane, uint site = SOFTMETAL_SITE) {                           \
    const int l = softmetal::own_lane();                                                       \
    return softmetal::shuffle_from(x, x, l / width * width + lane % width, site);              \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_broadcast(T x, ushort lane, uint site = SOFTMETAL_SITE) {                         \
    const int l = softmetal::own_lane();                                                       \
    return softmetal::shuffle_from(x, x, l / width * width + lane % width, site);              \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_xor(T x, ushort mask, uint site = SOFTMETAL_SITE) {                       \
    return softmetal::shuffle_from(x, x, (softmetal::own_lane() ^ (mask % width)) & 31, site); \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_up(T x, ushort delta, uint site = SOFTMETAL_SITE) {                       \
    const int l = softmetal::own_lane();                                                       \
    return softmetal::shuffle_from(x, x, l % width < delta ? l : l - delta, site);             \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_down(T x, ushort delta, uint site = SOFTMETAL_SITE) {                     \
    const int l = softmetal::own_lane();                                                       \
    return softmetal::shuffle_from(x, x, l % width + delta >= width ? l : l + delta, site);    \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_rotate_up(T x, ushort delta, uint site = SOFTMETAL_SITE) {                \
    const int l = softmetal::own_lane();                                                       \
    const int in = (l % width + width - delta % width) % width;                                \
    return softmetal::shuffle_from(x, x, l / width * width + in, site);                        \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_rotate_down(T x, ushort delta, uint site = SOFTMETAL_SITE) {              \
    const int l = softmetal::own_lane();                                                       \
    return softmetal::shuffle_from(x, x, l / width * width + (l + delta) % width, site);       \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_and_fill_up(T x, T fill, ushort delta, ushort modulo = width,             \
                                 uint site = SOFTMETAL_SITE) {                                 \
    const int l = softmetal::own_lane(), m = l % modulo, base = l - m;                         \
    const int from = m >= delta ? l - delta : 64 + base + m + modulo - delta;                  \
    return softmetal::shuffle_from(x, fill, from, site);                                       \
  }                                                                                            \
  template <typename T>                                                                        \
  T prefix##_shuffle_and_fill_down(T x, T fill, ushort delta, ushort modulo = width,           \
                                   uint site = SOFTMETAL_SITE) {                               \
    const int l = softmetal::own_lane(), m = l % modulo, base = l - m;                         \
    const int from = m + delta < modulo ? l + delta : 64 + base + m + delta - modulo;          \
    return softmetal::shuffle_from(x, fill, from, site);                                       \
  }
SOFTMETAL_GROUP_OPERATIONS(simd, 32)
SOFTMETAL_GROUP_OPERATIONS(quad, 4)
#undef SOFTMETAL_GROUP_OPERATIONS

template <typename T>
T simd_broadcast_first(T x, uint site = SOFTMETAL_SITE) {
  return softmetal::shuffle_from(x, x, softmetal::lowest(softmetal::active_of(site)), site);
}
inline bool simd_all(bool b, uint site = SOFTMETAL_SITE) {
  return softmetal::reduced<uint, softmetal::And, 32>(b, site) != 0;
}
inline bool simd_any(bool b, uint site = SOFTMETAL_SITE) {
  return softmetal::reduced<uint, softmetal::Or, 32>(b, site) != 0;
}
inline bool quad_all(bool b, uint site = SOFTMETAL_SITE) {
  return softmetal::reduced<uint, softmetal::And, 4>(b, site) != 0;
}
inline bool quad_any(bool b, uint site = SOFTMETAL_SITE) {
  return softmetal::reduced<uint, softmetal::Or, 4>(b, site) != 0;
}
inline simd_vote simd_ballot(bool b, uint site = SOFTMETAL_SITE) {
  return simd_vote(softmetal::ballot_of(b, site));
}
inline simd_vote simd_active_threads_mask(uint site = SOFTMETAL_SITE) {
  return simd_vote(softmetal::active_of(site));
}
inline bool simd_is_first(uint site = SOFTMETAL_SITE) {
  return softmetal::lowest(softmetal::active_of(site)) == softmetal::own_lane();
}
inline bool simd_is_helper_thread() { return false; }

/// The votes of the own quadgroup.
struct quad_vote {
  using vote_t = uchar;
  constexpr explicit quad_vote(vote_t v = 0) : softmetal_ballot(uchar(v & 15)) {}
  constexpr explicit operator vote_t() const { return softmetal_ballot; }
  constexpr bool all() const { return softmetal_ballot == 15; }
  constexpr bool any() const { return softmetal_ballot != 0; }

 private:
  uchar softmetal_ballot;
};
inline quad_vote quad_ballot(bool b, uint site = SOFTMETAL_SITE) {
  return quad_vote(uchar(softmetal::ballot_of(b, site) >> (softmetal::own_lane() & ~3)));
}
inline quad_vote quad_active_threads_mask(uint site = SOFTMETAL_SITE) {
  return quad_vote(uchar(softmetal::active_of(site) >> (softmetal::own_lane() & ~3)));
}
inline bool quad_is_first(uint site = SOFTMETAL_SITE) {
  const int base = softmetal::own_lane() & ~3;
  return base + softmetal::lowest(softmetal::active_of(site) >> base) == softmetal::own_lane();
}
template <typename T>
T quad_broadcast_first(T x, uint site = SOFTMETAL_SITE) {
  const int base = softmetal::own_lane() & ~3;
  const int first = base + softmetal::lowest(softmetal::active_of(site) >> base);
  return softmetal::shuffle_from(x, x, first, site);
}
inline bool quad_is_helper_thread() { return false; }

}  // namespace metal
