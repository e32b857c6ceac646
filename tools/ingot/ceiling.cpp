// A register-tiled f32 matrix product and a streaming read, compiled for every instruction set of
// the platform.
#include "ceiling.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "threads.hpp"

// Vectors of unknown length cannot be kept in arrays.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ceiling.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace ingot::cli::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// As many accumulators as the register file holds beside two vectors of B and one broadcast of A.
constexpr std::size_t tile_rows = HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON ? 12 : 6;
constexpr std::size_t depth = 128;  // both panels together stay below 24 KiB

// Written out by index sequences: a loop over rows would leave it to the optimiser whether C stays
// in registers.
using Rows = std::make_index_sequence<tile_rows>;

struct Tile {
  V left[tile_rows], right[tile_rows];

  // An implicit constructor would be compiled for the baseline and could not inline the vectors'
  // own.
  HWY_INLINE Tile() {}
};

template <std::size_t... Row>
HWY_INLINE void clear(Tile& c, std::index_sequence<Row...>) {
  ((c.left[Row] = c.right[Row] = hn::Zero(D())), ...);
}

template <std::size_t... Row>
HWY_INLINE void multiply_add(Tile& c, const float* a, V b0, V b1, std::index_sequence<Row...>) {
  ((c.left[Row] = hn::MulAdd(hn::Set(D(), a[Row]), b0, c.left[Row]),
    c.right[Row] = hn::MulAdd(hn::Set(D(), a[Row]), b1, c.right[Row])),
   ...);
}

template <std::size_t... Row>
HWY_INLINE V sum(const Tile& c, std::index_sequence<Row...>) {
  V total = hn::Zero(D());
  ((total = hn::Add(total, hn::Add(c.left[Row], c.right[Row]))), ...);
  return total;
}

// C[tile_rows, 2 vectors] = A[depth, tile_rows]^T B[depth, 2 vectors], panels packed. Writes the
// sum of C's rows, so that nothing can be left out. Returns multiply-adds done.
double multiply(const float* a, const float* b, float* c_sum) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  Tile c;
  clear(c, Rows());
  for (std::size_t k = 0; k < depth; ++k) {
    const V b0 = hn::Load(d, b + 2 * k * lanes);
    const V b1 = hn::Load(d, b + (2 * k + 1) * lanes);
    multiply_add(c, a + k * tile_rows, b0, b1, Rows());
  }
  hn::Store(hn::Add(hn::Load(d, c_sum), sum(c, Rows())), d, c_sum);
  return static_cast<double>(depth * tile_rows * 2 * lanes);
}

// Sum of all floats; eight independent chains hide the latency of the additions.
template <std::size_t... Chain>
HWY_INLINE float read_chains(const float* data, std::size_t count, std::index_sequence<Chain...>) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V sums[sizeof...(Chain)];
  ((sums[Chain] = hn::Zero(d)), ...);
  for (std::size_t i = 0; i + sizeof...(Chain) * lanes <= count; i += sizeof...(Chain) * lanes) {
    ((sums[Chain] = hn::Add(sums[Chain], hn::Load(d, data + i + Chain * lanes))), ...);
  }
  V total = hn::Zero(d);
  ((total = hn::Add(total, sums[Chain])), ...);
  return hn::GetLane(hn::SumOfLanes(d, total));
}

float read_all(const float* data, std::size_t count) {
  return read_chains(data, count, std::make_index_sequence<8>());
}

const char* target_name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace ingot::cli::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ingot::cli {

HWY_EXPORT(multiply);
HWY_EXPORT(read_all);
HWY_EXPORT(target_name);

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int usable_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

// Results go here, so that no work can be left out.
std::atomic<float> sink;

struct FreeAligned {
  void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using Floats = std::unique_ptr<float, FreeAligned>;

Floats make_floats(std::size_t count) {
  Floats data(static_cast<float*>(::operator new(count * sizeof(float), std::align_val_t{64})));
  std::fill_n(data.get(), count, 1.0F / 1024);
  return data;
}

// The best of several slices: other work on the machine can only lower one.
double measure_gflops(int threads) {
  std::vector<double> rates(5, 0.0);
  std::atomic<double> slice_rate{0};
  for (double& rate : rates) {
    slice_rate = 0;
    run_on_threads(threads, [&](int) {
      const Floats a = make_floats(4096), b = make_floats(16384), c = make_floats(4096);
      const auto kernel = HWY_DYNAMIC_DISPATCH(multiply);
      const auto begin = Clock::now();
      double work = 0, seconds = 0;
      do {
        for (int i = 0; i < 256; ++i) work += kernel(a.get(), b.get(), c.get());
        seconds = seconds_since(begin);
      } while (seconds < 0.15);
      sink = *c;
      slice_rate += 2 * work / seconds / 1e9;
    });
    rate = slice_rate;
  }
  return *std::max_element(rates.begin(), rates.end());
}

std::size_t read_buffer_bytes() {
  const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES));
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return std::min<std::size_t>(pages * page / 4, std::size_t{5} << 28);
}

double measure_read(int threads) {
  const std::size_t share =
      read_buffer_bytes() / sizeof(float) / static_cast<std::size_t>(threads) / 256 * 256;
  std::vector<Floats> parts(static_cast<std::size_t>(threads));
  // Each thread writes its part first, so that the pages lie near it.
  run_on_threads(threads, [&](int t) { parts[static_cast<std::size_t>(t)] = make_floats(share); });
  double best = 0;
  for (int repeat = 0; repeat < 4; ++repeat) {
    std::vector<Clock::time_point> begins(parts.size()), ends(parts.size());
    const int had = run_on_threads(threads, [&](int thread) {
      const auto t = static_cast<std::size_t>(thread);
      if (!parts[t]) parts[t] = make_floats(share);  // a thread that was not there before
      begins[t] = Clock::now();
      sink = HWY_DYNAMIC_DISPATCH(read_all)(parts[t].get(), share);
      ends[t] = Clock::now();
    });
    const auto begin = *std::min_element(begins.begin(), begins.begin() + had);
    const auto end = *std::max_element(ends.begin(), ends.begin() + had);
    const double bytes = static_cast<double>(share * sizeof(float)) * had;
    best = std::max(best, bytes / std::chrono::duration<double>(end - begin).count() / 1e9);
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(int threads) {
  const int wanted = threads > 0 ? threads : usable_threads();
  const int used = run_on_threads(wanted, [](int) {});  // as many as there are to be had
  return {measure_gflops(used), measure_read(used), HWY_DYNAMIC_DISPATCH(target_name)(), used};
}

}  // namespace ingot::cli
#endif
