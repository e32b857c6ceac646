// The data of the model: chips, and what is published of metal-flash-attention.
#include <algorithm>
#include <array>
#include <cmath>

#include "failure.hpp"
#include "model.hpp"

namespace ingot::cli {
namespace {

// Cores and memory bandwidth as Apple states them (full configurations). Clocks: metal-benchmarks
// and applegpuinfo for M1 and M2 (2.6/5.3/10.6/21.2 TFLOPS), 1.38 GHz for M3 (14.1 TFLOPS on Max),
// 1.578 GHz for M4 and M5 (several measurements; metal-flash-attention itself reckoned with 1.398
// on M4).
constexpr std::array<Chip, 15> chip_table{{{"m1", 7, 8, 1.278, 68},
                                           {"m1-pro", 7, 16, 1.296, 205},
                                           {"m1-max", 7, 32, 1.296, 410},
                                           {"m1-ultra", 7, 64, 1.296, 819},
                                           {"m2", 8, 10, 1.398, 102},
                                           {"m2-pro", 8, 19, 1.398, 205},
                                           {"m2-max", 8, 38, 1.398, 410},
                                           {"m3", 9, 10, 1.38, 102},
                                           {"m3-pro", 9, 18, 1.38, 154},
                                           {"m3-max", 9, 40, 1.38, 410},
                                           {"m4", 9, 10, 1.578, 120},
                                           {"m4-pro", 9, 20, 1.578, 273},
                                           {"m4-max", 9, 40, 1.578, 546},
                                           {"m5", 10, 10, 1.578, 153},
                                           {"m5-max", 10, 40, 1.578, 614}}};

// Operands that a row of the predecessor's tables keeps in registers.
enum Cached : unsigned {
  none = 0,
  c_q = 1,
  c_k = 2,
  c_v = 4,
  c_o = 8,
  c_dout = 16,
  c_dq = 32,
  c_dk = 64,
  c_dv = 128
};

// The first row with head_dim <= max_dim holds, else the last. p/t/h: rows of a threadgroup, rows
// of a step, columns of a slab of head_dim.
struct BlockRow {
  int max_dim, p, t, h;
  unsigned cached;
};
using Table = std::span<const BlockRow>;

// metal-flash-attention, AttentionDescriptor+Parameters (commit 8671cdd), restated.
constexpr BlockRow forward_16_new[] = {{32, 16, 128, 16, c_q | c_o},
                                       {96, 16, 128, 32, c_q | c_o},
                                       {160, 16, 128, 32, c_o},
                                       {224, 16, 128, 32, c_q},
                                       {384, 16, 128, 32, none}};
constexpr BlockRow forward_16_old[] = {
    {96, 32, 128, 32, c_q | c_o}, {128, 32, 128, 32, c_q}, {384, 32, 128, 32, none}};
constexpr BlockRow forward_32_new[] = {{8, 16, 128, 16, c_q | c_o},
                                       {16, 16, 64, 16, c_q | c_o},
                                       {48, 16, 32, 8, c_q | c_o},
                                       {192, 16, 64, 16, c_o},
                                       {384, 16, 128, 16, none}};
constexpr BlockRow forward_32_old[] = {{24, 32, 64, 24, c_q | c_o},
                                       {32, 32, 64, 32, c_o},
                                       {56, 32, 32, 56, c_o},
                                       {384, 32, 80, 16, none}};
constexpr BlockRow dq_16_new[] = {
    {80, 16, 64, 8, c_q | c_dout | c_dq}, {192, 16, 64, 32, c_q | c_dq}, {384, 16, 128, 32, none}};
constexpr BlockRow dq_16_old[] = {
    {32, 32, 64, 32, c_q | c_dq}, {96, 32, 64, 32, c_dq}, {384, 32, 64, 32, none}};
constexpr BlockRow dq_32_new[] = {{16, 16, 64, 8, c_q | c_dout | c_dq},
                                  {32, 16, 64, 16, c_q | c_dq},
                                  {192, 16, 64, 32, c_q | c_dq},
                                  {384, 16, 128, 16, none}};
constexpr BlockRow dq_32_old[] = {{16, 32, 64, 16, c_q | c_dq},
                                  {32, 32, 64, 32, c_dq},
                                  {56, 32, 64, 24, c_dq},
                                  {384, 32, 80, 16, none}};
constexpr BlockRow dkv_16_new[] = {{56, 16, 64, 8, c_k | c_v | c_dv | c_dk},
                                   {80, 16, 32, 16, c_v | c_dv | c_dk},
                                   {144, 16, 128, 16, c_dv | c_dk},
                                   {224, 16, 128, 16, c_dv},
                                   {384, 16, 128, 32, none}};
constexpr BlockRow dkv_16_old[] = {{16, 32, 64, 16, c_v | c_dv | c_dk},
                                   {32, 32, 64, 32, c_dv | c_dk},
                                   {56, 32, 80, 32, c_dv},
                                   {96, 32, 64, 32, c_dv},
                                   {384, 32, 64, 32, none}};
constexpr BlockRow dkv_32_new[] = {{16, 16, 64, 8, c_k | c_v | c_dv | c_dk},
                                   {32, 16, 32, 16, c_k | c_v | c_dv | c_dk},
                                   {64, 16, 32, 16, c_v | c_dv | c_dk},
                                   {128, 16, 128, 16, c_dv | c_dk},
                                   {160, 16, 128, 16, c_dv},
                                   {384, 16, 128, 16, none}};
constexpr BlockRow dkv_32_old[] = {{16, 32, 32, 16, c_v | c_dv | c_dk},
                                   {24, 32, 64, 24, c_dv | c_dk},
                                   {56, 32, 80, 16, c_dv},
                                   {384, 32, 80, 16, none}};

// By kernel, then 16 or 32 bit, then family 9 and newer or older.
const Table tables[3][2][2] = {{{forward_16_new, forward_16_old}, {forward_32_new, forward_32_old}},
                               {{dq_16_new, dq_16_old}, {dq_32_new, dq_32_old}},
                               {{dkv_16_new, dkv_16_old}, {dkv_32_new, dkv_32_old}}};

const BlockRow& row_of(Table table, std::int64_t head_dim) {
  for (const BlockRow& row : table) {
    if (head_dim <= row.max_dim) return row;
  }
  return table.back();
}

// The published tables of metal-flash-attention ("FlashAttention Variants"), head_dim 32 and more:
// M1 Max, N = 16384; M4, N = 8192.
constexpr Kernel fwd = Kernel::forward, dq = Kernel::dq, dkv = Kernel::dkv;
constexpr Fit ov = Fit::overlap, ws = Fit::working_set, no = Fit::none;
constexpr Published published_table[] = {
    {"m1-max", fwd, 2, 32, 4845, no},  {"m1-max", dq, 2, 32, 4690, ov},
    {"m1-max", dkv, 2, 32, 4322, ov},  {"m1-max", fwd, 2, 64, 4720, ov},
    {"m1-max", dq, 2, 64, 4411, ov},   {"m1-max", dkv, 2, 64, 4163, ov},
    {"m1-max", fwd, 2, 80, 4552, no},  {"m1-max", dq, 2, 80, 4278, no},
    {"m1-max", dkv, 2, 80, 3957, no},  {"m1-max", fwd, 2, 96, 4642, no},
    {"m1-max", dq, 2, 96, 4425, no},   {"m1-max", dkv, 2, 96, 4295, no},
    {"m1-max", fwd, 2, 128, 4595, ov}, {"m1-max", dq, 2, 128, 4411, ov},
    {"m1-max", dkv, 2, 128, 4217, ov}, {"m1-max", fwd, 2, 160, 4603, no},
    {"m1-max", dq, 2, 160, 4414, no},  {"m1-max", dkv, 2, 160, 4221, no},
    {"m1-max", fwd, 2, 192, 4613, no}, {"m1-max", dq, 2, 192, 4424, no},
    {"m1-max", dkv, 2, 192, 4238, no}, {"m1-max", fwd, 2, 256, 4633, ov},
    {"m1-max", dq, 2, 256, 4444, ov},  {"m1-max", dkv, 2, 256, 4262, ov},
    {"m1-max", fwd, 2, 384, 4447, ov}, {"m1-max", dq, 2, 384, 4379, no},
    {"m1-max", dkv, 2, 384, 3765, no}, {"m1-max", fwd, 4, 32, 4197, no},
    {"m1-max", dq, 4, 32, 2978, no},   {"m1-max", dkv, 4, 32, 2866, no},
    {"m1-max", fwd, 4, 48, 4152, no},  {"m1-max", dq, 4, 48, 3041, no},
    {"m1-max", dkv, 4, 48, 3202, no},  {"m1-max", fwd, 4, 64, 3605, ov},
    {"m1-max", dq, 4, 64, 3340, ov},   {"m1-max", dkv, 4, 64, 3311, ov},
    {"m1-max", fwd, 4, 128, 3640, ov}, {"m1-max", dq, 4, 128, 3490, ov},
    {"m1-max", dkv, 4, 128, 3398, ov}, {"m1-max", fwd, 4, 256, 3650, ov},
    {"m1-max", dq, 4, 256, 3203, no},  {"m1-max", dkv, 4, 256, 3036, no},
    {"m1-max", fwd, 4, 384, 3421, no}, {"m1-max", dq, 4, 384, 2921, no},
    {"m1-max", dkv, 4, 384, 2778, no}, {"m4", fwd, 2, 32, 1785, ws},
    {"m4", dq, 2, 32, 1717, ws},       {"m4", dkv, 2, 32, 1695, ws},
    {"m4", fwd, 2, 64, 1740, ws},      {"m4", dq, 2, 64, 1689, ws},
    {"m4", dkv, 2, 64, 1622, ws},      {"m4", fwd, 2, 96, 1722, no},
    {"m4", dq, 2, 96, 1625, no},       {"m4", dkv, 2, 96, 1600, no},
    {"m4", fwd, 2, 128, 1663, ws},     {"m4", dq, 2, 128, 1604, ws},
    {"m4", dkv, 2, 128, 1568, ws},     {"m4", fwd, 2, 160, 1648, no},
    {"m4", dq, 2, 160, 1605, no},      {"m4", dkv, 2, 160, 1498, no},
    {"m4", fwd, 2, 192, 1545, no},     {"m4", dq, 2, 192, 1546, no},
    {"m4", dkv, 2, 192, 1408, no},     {"m4", fwd, 2, 256, 1485, ws},
    {"m4", dq, 2, 256, 1469, ws},      {"m4", dkv, 2, 256, 1335, ws},
    {"m4", fwd, 2, 384, 1321, ws},     {"m4", dq, 2, 384, 1268, ws},
    {"m4", dkv, 2, 384, 1155, ws},     {"m4", fwd, 4, 32, 1500, ws},
    {"m4", dq, 4, 32, 1461, ws},       {"m4", dkv, 4, 32, 1428, ws},
    {"m4", fwd, 4, 64, 1400, ws},      {"m4", dq, 4, 64, 1414, ws},
    {"m4", dkv, 4, 64, 1373, ws},      {"m4", fwd, 4, 128, 1339, ws},
    {"m4", dq, 4, 128, 1248, ws},      {"m4", dkv, 4, 128, 1232, ws},
    {"m4", fwd, 4, 192, 1214, no},     {"m4", dq, 4, 192, 1166, no},
    {"m4", dkv, 4, 192, 951, no},      {"m4", fwd, 4, 256, 978, ws},
    {"m4", dq, 4, 256, 954, ws},       {"m4", dkv, 4, 256, 905, ws},
    {"m4", fwd, 4, 384, 889, ws},      {"m4", dq, 4, 384, 877, ws},
    {"m4", dkv, 4, 384, 864, ws}};

constexpr PublishedLength length_table[] = {{"m1-max", 128, 37},    {"m1-max", 512, 166},
                                            {"m1-max", 1024, 597},  {"m1-max", 2048, 1449},
                                            {"m1-max", 4096, 3192}, {"m1-max", 8192, 3256}};

// Register bytes a thread by the predecessor's own estimate: D of f32 accumulators and cached
// operands, T of scores.
int register_bytes(const BlockRow& row, const KernelProblem& p) {
  const unsigned accumulators = row.cached & (c_o | c_dq | c_dk | c_dv);
  const unsigned inputs = row.cached & (c_q | c_k | c_v | c_dout);
  const auto count = [](unsigned bits) { return __builtin_popcount(bits); };
  const int d = static_cast<int>((p.head_dim + 7) / 8 * 8);
  const int scores = p.kernel == Kernel::forward ? 1 : 2;
  // An 8-row tile holds 8 columns in 2 registers a lane: a column is 1 byte a thread and byte of
  // the element, over 4.
  return (count(accumulators) * 4 + count(inputs) * p.element_bytes) * d / 4 + scores * row.t;
}

}  // namespace

std::span<const Chip> chips() { return chip_table; }

const Chip& find_chip(std::string_view name) {
  std::string names;
  for (const Chip& chip : chip_table) {
    if (name == chip.name) return chip;
    names += (names.empty() ? "" : ", ") + std::string(chip.name);
  }
  throw UsageError("--chip: must be one of " + names + ", got " + std::string(name));
}

namespace {

double whole_tiles(std::int64_t columns) {
  const std::int64_t tiles = (columns + 7) / 8;
  return 8 * static_cast<double>(tiles);
}

}  // namespace

KernelShape predecessor_shape(const Chip& chip, const KernelProblem& p) {
  const auto kernel = static_cast<std::size_t>(p.kernel);
  const Table table = tables[kernel][p.element_bytes == 4 ? 1 : 0][chip.family >= 9 ? 0 : 1];
  const BlockRow& row = row_of(table, std::max(p.head_dim, p.head_dim_v));
  const double d = whole_tiles(p.head_dim);
  const double dv = whole_tiles(p.head_dim_v);
  const auto unless = [&](unsigned bit, double columns) { return row.cached & bit ? 0 : columns; };
  KernelShape s;
  s.block_m = row.p;
  s.block_n = row.t;
  s.simdgroups = row.p / 8;
  s.wide_operands = p.element_bytes == 4;
  switch (p.kernel) {
    case Kernel::forward:
      s.rhs_memory = d + dv;
      s.lhs_memory = unless(c_q, d);
      s.paged = unless(c_o, dv);
      break;
    case Kernel::dq:
      s.rhs_memory = 2 * d + dv;
      s.lhs_memory = unless(c_q, d) + unless(c_dout, dv);
      s.paged = unless(c_dq, d);
      break;
    case Kernel::dkv:
      s.rhs_memory = 2 * d + 2 * dv;
      s.lhs_memory = unless(c_k, d) + unless(c_v, dv);
      s.paged = unless(c_dk, d) + unless(c_dv, dv);
      break;
  }
  s.register_bytes = register_bytes(row, p);
  // One buffer for everything: a slab of the walked operand, or of a paged f32 accumulator.
  s.shared_bytes = std::max(row.t * row.h * p.element_bytes, row.p * row.h * 4);
  s.label = "metal-flash-attention " + std::to_string(row.p) + "x" + std::to_string(row.t) + "x" +
            std::to_string(row.h);
  return s;
}

std::span<const Published> published() { return published_table; }

KernelProblem problem_of(const Published& point) {
  const std::int64_t n = std::string(point.chip) == "m4" ? 8192 : 16384;
  return {.kernel = point.kernel,
          .element_bytes = point.element_bytes,
          .head_dim = point.head_dim,
          .head_dim_v = point.head_dim,
          .seqlen_q = n,
          .seqlen_k = n};
}

double error_of(const Published& point, Terms terms) {
  const Chip& chip = find_chip(point.chip);
  const KernelProblem p = problem_of(point);
  return tile_utilisation(chip, p, predecessor_shape(chip, p), terms) -
         point.ginstrs / peak_ginstrs(chip);
}

const Published* find_published(const Chip& chip, const KernelProblem& p) {
  for (const Published& point : published_table) {
    if (std::string(point.chip) == chip.name && point.kernel == p.kernel &&
        point.element_bytes == p.element_bytes && point.head_dim == p.head_dim &&
        point.head_dim == p.head_dim_v) {
      return &point;
    }
  }
  return nullptr;
}

std::span<const PublishedLength> published_lengths() { return length_table; }

}  // namespace ingot::cli
