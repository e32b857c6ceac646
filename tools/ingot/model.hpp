// A static model of attention kernels on Apple GPUs: time from block shapes, without hardware.
// Everything it gives is modelled, nothing measured. Formulas and constants: docs/metal.md.
//
// Unit of the inner formulas: clocks that one of a core's four schedulers spends on an 8x8 tile of
// scores, in all products that the pass makes of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ingot::cli {

struct Chip {
  const char* name;  ///< "m1-max"
  int family;        ///< Apple GPU family: 7 (M1), 8 (M2), 9 (M3, M4), 10 (M5)
  int cores;
  double ghz;
  double dram_gb_s;
};

std::span<const Chip> chips();
/// Throws UsageError that lists the names.
const Chip& find_chip(std::string_view name);
/// 1e9 FMA a second: 128 a clock and core. The unit of GINSTRS.
double peak_ginstrs(const Chip& chip);

enum class Kernel : std::uint8_t { forward, dq, dkv };
const char* name(Kernel kernel);

/// Sizes of one call of a kernel. Causal: row i sees keys 0..i + seqlen_k - seqlen_q.
struct KernelProblem {
  Kernel kernel = Kernel::forward;
  int element_bytes = 2;  ///< of q, k, v, dout
  std::int64_t head_dim = 64, head_dim_v = 64;
  std::int64_t seqlen_q = 0, seqlen_k = 0;
  std::int64_t batch = 1, heads = 1, heads_kv = 1;
  bool causal = false;
};

/// What the model looks at in a kernel. "Columns" are head_dim columns, counted per step: one block
/// of block_m x block_n scores. Rows are those that a threadgroup owns: queries in forward and dQ,
/// keys in dK/dV.
struct KernelShape {
  std::string label;  ///< whose, and block_m x block_n / rows_per_simdgroup / column_splits
  int block_m = 0, block_n = 0;
  int rows_per_simdgroup = 8;
  int simdgroups = 4;
  int column_splits = 1;  ///< simdgroups that share rows and deal out the columns of the results
  int result_width = 0;   ///< columns of a slab that is dealt out; 0: all in one
  bool wide_operands = false;  ///< 32-bit operands of matrix operations, whatever memory holds
  bool whole_steps = false;    ///< a short last step costs as much as a whole one
  double rhs_memory = 0;       ///< columns of right-hand operands that come from memory
  double lhs_memory = 0;       ///< columns of left-hand operands that come from memory again
  double lhs_tiles = 0;  ///< reads of 8x8 left-hand tiles from threadgroup memory or L1, a score
                         ///< tile; the fit of the constants leaves out those of lhs_memory
  double paged = 0;      ///< columns of f32 accumulators read from and written to memory
  double exchanged_bytes = 0;  ///< through threadgroup memory between simdgroups, a score
  int register_bytes = 0;      ///< a thread, estimated; 0: not known
  int shared_bytes = 0;        ///< threadgroup memory
};

/// Clocks of one score tile, by cause. `tile` is their sum with imperfect overlap.
struct TileClocks {
  double issue = 0, l2 = 0, threadgroup = 0, tile = 0;
  double l2_exposed = 0;  ///< part of l2 that issue does not hide
};

/// plain: one exposed part of L2 traffic for all. working_set: from family 9 on, more of it the
/// more bytes a row keeps in use.
enum class Terms : std::uint8_t { plain, working_set };

struct Modelled {
  TileClocks clocks;
  double utilisation = 0;  ///< credited instructions over what the ALUs could issue; full grid
  double plain_utilisation = 0;  ///< the same by Terms::plain
  double fill = 0;               ///< how far the grid keeps every core busy, 0..1
  double seconds = 0;            ///< of this call, launch included
  double ginstrs = 0;            ///< credited instructions of this call, 1e9 a second
  bool memory_bound = false;
  std::int64_t groups = 0;
};

/// Instructions per visible pair that the literature credits: one FMA a column and product, and 5.
double credited_per_pair(const KernelProblem& problem);
/// Pairs that the mask leaves, and pairs in the blocks that a kernel works on, of one head.
double visible_pairs(const KernelProblem& problem);
double worked_pairs(const KernelProblem& problem, const KernelShape& shape);

TileClocks tile_clocks(const Chip& chip, const KernelProblem& problem, const KernelShape& shape,
                       Terms terms = Terms::working_set);
/// Credited instructions of a full grid over what the ALUs could issue.
double tile_utilisation(const Chip& chip, const KernelProblem& problem, const KernelShape& shape,
                        Terms terms = Terms::working_set);
Modelled model(const Chip& chip, const KernelProblem& problem, const KernelShape& shape);

/// The block shapes of metal-flash-attention for this chip, precision and head_dim.
KernelShape predecessor_shape(const Chip& chip, const KernelProblem& problem);

/// What a published figure was used for: the two overlap factors (plain), the working set of
/// family 9 and newer, or nothing but to compare.
enum class Fit : std::uint8_t { none, overlap, working_set };

/// A published measurement of metal-flash-attention: one head, long sequences.
struct Published {
  const char* chip;
  Kernel kernel;
  int element_bytes, head_dim;
  double ginstrs;
  Fit fit;
};
std::span<const Published> published();
KernelProblem problem_of(const Published& point);

/// Modelled less published utilisation, of all the ALUs could issue.
double error_of(const Published& point, Terms terms = Terms::working_set);
/// The figure of this chip for this kernel, precision and head_dim, or null.
const Published* find_published(const Chip& chip, const KernelProblem& problem);

/// Published figures of one f32 head with head_dim 64 by sequence length: what launches and grids
/// that do not fill the chip cost.
struct PublishedLength {
  const char* chip;
  int seqlen;
  double ginstrs;
};
std::span<const PublishedLength> published_lengths();

}  // namespace ingot::cli
