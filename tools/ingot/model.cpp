#include "model.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace ingot::cli {
namespace {

// Issue of an 8x8x8 matrix FMA (512 FMA on 32 lanes: ideal 16), per scheduler: philipturner's
// metal-benchmarks, M1 and M2; achieved rates in GEMM 102.5 and 101.7 FMA/clk/core agree.
constexpr double mma_clocks_16bit = 17, mma_clocks_32bit = 18;
// Scalar work on two scores a lane: two exp2 at 4 clocks each, and FMA, maximum, sum, conversion.
constexpr double softmax_clocks_forward = 18, softmax_clocks_backward = 20;
// A comparison and a select for each of two scores, in blocks that the mask cuts.
constexpr double mask_clocks = 8;
// Bytes a clock and scheduler: a quarter of a core's 32 (L2) and 64 (L1, threadgroup memory).
constexpr double l2_bytes = 8, threadgroup_bytes = 16;
// Parts of the data movement that issue does not hide: fitted to 19 published figures of M1 Max.
constexpr double l2_exposed = 0.20, threadgroup_exposed = 0.15;
// From family 9 on, registers, threadgroup memory and L1 share one cache (Apple: dynamic caching):
// the bytes that a row keeps in use, its own operand, what is read again every step and paged
// accumulators, crowd out what streams by. Fitted to the 30 published figures of M4 with head_dim
// 32, 64, 128, 256, 384; the others check it.
constexpr double row_bytes_at_ease = 512, exposed_per_row_byte = 0.16 / 1024;
// Rows in flight (simdgroups times their rows) a core needs to issue at full rate, and what a
// launch costs: fitted to the published figures by sequence length of one head on M1 Max. From
// family 9 on kernels with only 96 rows in flight reach their modelled rate (dK/dV, head_dim 128,
// M4).
constexpr double rows_in_flight_old = 128, rows_in_flight_new = 96, launch_seconds = 50e-6;
// Threads a core holds by 16-bit registers a thread (metal-benchmarks; M1). Newer families manage
// registers dynamically; the same table is used.
struct Occupancy {
  int registers, threads;
};
constexpr std::array<Occupancy, 10> occupancy{{{104, 1024},
                                               {112, 896},
                                               {128, 832},
                                               {136, 768},
                                               {144, 704},
                                               {160, 640},
                                               {184, 576},
                                               {208, 512},
                                               {232, 448},
                                               {256, 384}}};
// Registers besides tiles: addresses, indices, statistics of rows.
constexpr int other_register_bytes = 64;
constexpr int core_threadgroup_bytes = 60 * 1024;  // metal-benchmarks: what a core has

double ceil_div(double a, double b) { return std::ceil(a / b); }

double round_up(double a, double b) { return ceil_div(a, b) * b; }

// Column tiles of a result: simdgroups that share rows deal whole tiles of every slab out.
double dealt_tiles(double tiles, const KernelShape& s) {
  const double all = round_up(tiles, s.column_splits);
  return s.result_width > 0 ? round_up(all, std::min(s.result_width / 8.0, all)) : all;
}

// 8x8x8 products a score tile.
double mma_count(const KernelProblem& p, const KernelShape& s) {
  const double d = ceil_div(static_cast<double>(p.head_dim), 8);
  const double dv = ceil_div(static_cast<double>(p.head_dim_v), 8);
  const double d_dealt = dealt_tiles(d, s), dv_dealt = dealt_tiles(dv, s);
  switch (p.kernel) {
    case Kernel::forward:
      return d + dv_dealt;
    case Kernel::dq:
      return d + dv + d_dealt;
    case Kernel::dkv:
      return d + dv + d_dealt + dv_dealt;
  }
  return 0;
}

// The sequence that a threadgroup owns rows of, and the one it walks along.
double own_length(const KernelProblem& p) {
  return static_cast<double>(p.kernel == Kernel::dkv ? p.seqlen_k : p.seqlen_q);
}
double walked_length(const KernelProblem& p) {
  return static_cast<double>(p.kernel == Kernel::dkv ? p.seqlen_q : p.seqlen_k);
}

// Rows of the walked sequence that rows [first, last] of the own one see, as [begin, end).
std::array<double, 2> visible_range(const KernelProblem& p, double first, double last) {
  const double length = walked_length(p);
  if (!p.causal) return {0, length};
  const double shift = static_cast<double>(p.seqlen_k - p.seqlen_q);
  if (p.kernel == Kernel::dkv) return {std::clamp(first - shift, 0.0, length), length};
  return {0, std::clamp(last + shift + 1, 0.0, length)};
}

double groups_of(const KernelProblem& p, const KernelShape& s) {
  const double heads = static_cast<double>(p.kernel == Kernel::dkv ? p.heads_kv : p.heads);
  return ceil_div(own_length(p), s.block_m) * heads * static_cast<double>(p.batch);
}

// Threadgroups that a core holds at once.
double resident_groups(const KernelShape& s) {
  int threads = 1024;
  if (s.register_bytes > 0) {
    const int registers = (s.register_bytes + other_register_bytes) / 2;
    threads = occupancy.back().threads;
    for (const Occupancy& row : occupancy) {
      if (registers <= row.registers) {
        threads = row.threads;
        break;
      }
    }
  }
  const int by_threads = threads / (32 * s.simdgroups);
  const int by_memory = s.shared_bytes > 0 ? core_threadgroup_bytes / s.shared_bytes : by_threads;
  return std::max(1, std::min(by_threads, by_memory));
}

// How far `groups` threadgroups on one core keep it issuing.
double core_fill(const Chip& chip, const KernelShape& s, double groups) {
  const double resident = std::min(groups, resident_groups(s));
  const double needed = chip.family >= 9 ? rows_in_flight_new : rows_in_flight_old;
  return std::min(1.0, resident * s.simdgroups * s.rows_per_simdgroup / needed);
}

// The part of the traffic with L2 that issue does not hide.
double exposed_part(const Chip& chip, const KernelProblem& p, const KernelShape& s, Terms terms) {
  if (chip.family < 9 || terms == Terms::plain) return l2_exposed;
  const double row_bytes =
      (static_cast<double>(p.head_dim) + s.lhs_memory) * p.element_bytes + s.paged * 4;
  const double crowding = std::max(row_bytes - row_bytes_at_ease, 0.0) * exposed_per_row_byte;
  return std::min(l2_exposed + crowding, 1.0);
}

// Every operand and result once.
double dram_bytes(const KernelProblem& p) {
  const double e = p.element_bytes, b = static_cast<double>(p.batch);
  const double q = b * static_cast<double>(p.heads * p.seqlen_q);
  const double k = b * static_cast<double>(p.heads_kv * p.seqlen_k);
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.head_dim_v);
  switch (p.kernel) {
    case Kernel::forward:
      return e * (q + k) * (d + dv);
    case Kernel::dq:
      return e * (q * (2 * d + dv) + k * (d + dv));
    case Kernel::dkv:
      return e * (q + 2 * k) * (d + dv);
  }
  return 0;
}

}  // namespace

const char* name(Kernel kernel) {
  constexpr std::array<const char*, 3> names{"forward", "dq", "dkv"};
  return names.at(static_cast<std::size_t>(kernel));
}

double peak_ginstrs(const Chip& chip) { return 128.0 * chip.cores * chip.ghz; }

double credited_per_pair(const KernelProblem& p) {
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.head_dim_v);
  switch (p.kernel) {
    case Kernel::forward:
      return d + dv + 5;
    case Kernel::dq:
      return 2 * d + dv + 5;
    case Kernel::dkv:
      return 2 * d + 2 * dv + 5;
  }
  return 0;
}

double visible_pairs(const KernelProblem& p) {
  double pairs = 0;
  for (std::int64_t i = 0; static_cast<double>(i) < own_length(p); ++i) {
    const auto row = static_cast<double>(i);
    const auto [begin, end] = visible_range(p, row, row);
    pairs += end - begin;
  }
  return pairs;
}

double worked_pairs(const KernelProblem& p, const KernelShape& s) {
  double pairs = 0;
  for (std::int64_t i = 0; static_cast<double>(i) * s.block_m < own_length(p); ++i) {
    const double row = static_cast<double>(i) * s.block_m;
    const double last = std::min(row + s.block_m, own_length(p)) - 1;
    const auto [begin, end] = visible_range(p, row, last);
    if (end <= begin) continue;
    const double first_step = std::floor(begin / s.block_n) * s.block_n;
    const double unit = s.whole_steps ? s.block_n : 8;
    pairs += s.block_m * ceil_div(end - first_step, unit) * unit;
  }
  return pairs;
}

TileClocks tile_clocks(const Chip& chip, const KernelProblem& p, const KernelShape& s,
                       Terms terms) {
  const double e = p.element_bytes, n = mma_count(p, s);
  const double softmax =
      p.kernel == Kernel::forward ? softmax_clocks_forward : softmax_clocks_backward;
  const double matrix = n * (s.wide_operands ? mma_clocks_32bit : mma_clocks_16bit);
  TileClocks t;
  // From family 9 on, matrix and scalar instructions issue side by side.
  t.issue = chip.family >= 9 ? std::max(matrix, softmax) : matrix + softmax;
  const double step_bytes =
      s.block_n * s.rhs_memory * e + s.block_m * s.lhs_memory * e + s.block_m * s.paged * 2 * 4;
  const double tiles = s.block_m / 8.0 * (s.block_n / 8.0);
  t.l2 = step_bytes / tiles / l2_bytes;
  const double rhs_tiles = n * 8 / s.rows_per_simdgroup;
  t.threadgroup = ((rhs_tiles + s.lhs_tiles) * 64 * e + 64 * s.exchanged_bytes) / threadgroup_bytes;
  t.l2_exposed = exposed_part(chip, p, s, terms);
  t.tile = std::max(
      {t.issue + t.l2_exposed * t.l2 + threadgroup_exposed * t.threadgroup, t.l2, t.threadgroup});
  return t;
}

double tile_utilisation(const Chip& chip, const KernelProblem& p, const KernelShape& s,
                        Terms terms) {
  return 64 * credited_per_pair(p) / 32 / tile_clocks(chip, p, s, terms).tile;
}

Modelled model(const Chip& chip, const KernelProblem& p, const KernelShape& s) {
  Modelled m;
  m.clocks = tile_clocks(chip, p, s);
  m.utilisation = tile_utilisation(chip, p, s);
  m.plain_utilisation = tile_utilisation(chip, p, s, Terms::plain);
  const double groups = groups_of(p, s);
  m.groups = static_cast<std::int64_t>(groups);
  // The busiest core decides: it runs ceil(groups / cores) threadgroups of average length.
  const double busiest = ceil_div(groups, chip.cores);
  const double own_share = core_fill(chip, s, busiest);
  m.fill = groups > 0 ? own_share * groups / (busiest * chip.cores) : 0;
  // The heads that share a key head are walked one after another by its threadgroups.
  const double heads = static_cast<double>(p.batch * p.heads);
  double tile_seconds = worked_pairs(p, s) * heads / 64 * m.clocks.tile;
  if (p.causal) {
    const double cut = (s.block_m + s.block_n) / 2.0 * own_length(p) * heads / 64;
    tile_seconds += cut * mask_clocks;
  }
  tile_seconds /= 4 * chip.cores * chip.ghz * 1e9 * std::max(m.fill, 1e-9);
  const double memory_seconds = dram_bytes(p) / (chip.dram_gb_s * 1e9);
  m.memory_bound = memory_seconds > tile_seconds;
  m.seconds = launch_seconds + std::max(tile_seconds, memory_seconds);
  m.ginstrs = visible_pairs(p) * heads * credited_per_pair(p) / m.seconds / 1e9;
  return m;
}

}  // namespace ingot::cli
