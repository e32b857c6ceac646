// The forward pass of the CPU back end: how the work is cut into units, and where their tiles lie.
//
// Query rows live in vector lanes. A unit holds a block of rows of one or more query heads that
// share a kv head and walks over its keys, or over one chunk of them where the keys are split. Bits
// depend on the plan alone, never on threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/plan.hpp"
#include "core/problem.hpp"
#include "cpu/parts.hpp"

namespace ingot {

class ThreadPool;

/// Rows of one unit: heads [head, head + heads) by rows [row, row + rows), heads > 1 only with all
/// rows of each.
struct RowBlock {
  std::int64_t batch = 0, head = 0, heads = 0, row = 0, rows = 0;
  constexpr std::int64_t lanes() const { return heads * rows; }
};

/// The grid: blocks of rows, each by split_k chunks of keys.
struct ForwardGrid {
  std::int64_t heads_per_block = 1;  ///< query heads that share one block
  /// Blocks that the query heads of one kv head make for one range of rows.
  std::int64_t blocks_per_group = 1;
  std::int64_t row_blocks = 1;  ///< ranges of rows
  std::int64_t blocks = 0;      ///< of the whole problem
  std::int64_t split_k = 1;
  std::int64_t keys_per_chunk = 0;
  constexpr std::int64_t units() const { return blocks * split_k; }
};

ForwardGrid make_forward_grid(const Problem& problem, std::int64_t block_m, std::int64_t split_k);

/// Block `index` of the grid; the ones with the most keys under a causal mask come first.
RowBlock row_block(const Problem& problem, const ForwardGrid& grid, std::int64_t block_m,
                   std::int64_t index);

/// Scratch of one worker, sizes and offsets in floats.
struct ForwardLayout {
  std::int64_t panel = 0;   ///< query rows that are worked on at a time
  std::int64_t panels = 0;  ///< of a block
  /// Of Q^T [head_dim][panel], O^T [head_dim_v][panel], row_max and row_sum.
  std::int64_t panel_floats = 0;
  std::int64_t scores = 0;    ///< S^T and P^T [block_n][panel], then six vectors of one panel
  std::int64_t k = 0, v = 0;  ///< f32 copies of the tile's keys and values
  std::int64_t ld_k = 0, ld_v = 0;
  PartTilesLayout parts;  ///< [block_n][panel]
  std::int64_t total = 0;
};

ForwardLayout make_forward_layout(const Parts& parts, const Config& config, std::int64_t lanes);

/// Scratch of one worker of the kernel "decode", for few query rows: these lie one after another,
/// not in lanes.
struct DecodeLayout {
  std::int64_t ld_q = 0, ld_v = 0,
               ld_s = 0;  ///< floats of a row of q and k, of v and o, and of the scores
  std::int64_t q = 0, o = 0, scores = 0, row_max = 0, row_sum = 0, k = 0, v = 0;
  PartTilesLayout parts;  ///< [block_n], of the row at hand
  std::int64_t total = 0;
};

DecodeLayout make_decode_layout(const Parts& parts, const Config& config, std::int64_t lanes);

inline bool is_decode(const Config& config) { return config.kernel == "decode"; }

/// Floats of one row's partial result where keys are split: O, then row_max and row_sum.
constexpr std::int64_t partial_floats(const Config& config) { return config.head_dim_v + 2; }

/// Floats of all partial results, a multiple of 16.
constexpr std::int64_t partials_floats(const ForwardGrid& grid, const Config& config) {
  return (grid.units() * config.block_m * partial_floats(config) + 15) / 16 * 16;
}

struct ForwardCall {
  const Problem& problem;
  const Config& config;
  const ForwardArgs& args;
  ForwardGrid grid;
  ForwardLayout layout;
  DecodeLayout decode_layout;
  float* partials =
      nullptr;  ///< [block][chunk][row of the block][partial_floats]; null: keys are not split
};

/// Runs plan.forward. `workspace` holds at least plan.forward.workspace_bytes and is 64-byte
/// aligned.
void run_forward(const Plan& plan, const ForwardArgs& args, ThreadPool& pool,
                 std::span<std::byte> workspace);

}  // namespace ingot
