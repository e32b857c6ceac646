// How a problem runs on an NVIDIA GPU: a pure function of the problem and the device's properties.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "algorithm/score.h"
#include "core/plan.hpp"
#include "core/problem.hpp"
#include "cuda/config.hpp"
#include "cuda/cuda_device.hpp"
#include "cuda/tuned_table.hpp"

namespace ingot::cuda {

inline constexpr std::int64_t workspace_alignment = 256;  ///< of what lies in a workspace

/// One kernel of a plan. What is loaded for it is kept here, so that a call looks nothing up.
struct Step {
  Config config;
  KernelPlan kernel;  ///< file, literals and launch, as explain shows them
  Launch launch;
  std::unique_ptr<std::atomic<const LoadedKernel*>> loaded =
      std::make_unique<std::atomic<const LoadedKernel*>>(nullptr);
};

/// Forward by the copy engine and warpgroup products of Hopper.
struct Sm90Forward {
  Step step;
  std::int64_t tiles = 0;          ///< of block_m * cluster rows, of one head
  std::int64_t units = 0;          ///< of all heads
  std::int64_t heads_at_once = 0;  ///< whose keys and values share the L2 cache
  std::optional<Step> split;       ///< f32: q, k and v to terms of bf16 in the workspace first
  std::size_t workspace_bytes = 0;
  bool is_tuned = false;  ///< the tile is of the user's table
};

/// Elements of one plane of a tensor that is split into terms: rows of the next multiple of 8
/// columns.
inline std::int64_t plane_elements(std::int64_t rows, std::int64_t dim) {
  return rows * ((dim + 7) / 8 * 8);
}

/// Forward by the matrix instructions of sm_80, at any strides; with splits > 1 the combine kernel
/// merges what pieces of the keys gave.
struct MmaForward {
  Step step;
  std::optional<Step> engine;  ///< in its place where the copy engine can address k and v
  std::optional<Step> combine;
  std::int64_t row_tiles = 0;
  std::int64_t column_slices = 1;
  std::int64_t splits = 1;
  std::size_t partial_o_bytes = 0;  ///< of the workspace; PieceSums lie behind
  std::size_t workspace_bytes = 0;
  bool is_tuned = false;
};

struct ForwardDetail final : PassDetail {
  ScoreParams score;
  std::optional<Sm90Forward> fast;  ///< tried first, where the tensors of the call allow it
  std::optional<MmaForward> any;    ///< always there, but for problems without output
};

/// What the backward kernels of Hopper read of every query (kernels/statistics.cuh). It comes first
/// in the workspace: lse_log2, then delta, each [batch * num_heads][rows_padded], a bit for each
/// row, and the sums of large rows.
struct BackwardStatistics {
  Step step;
  std::int64_t rows_padded = 0;
  std::int64_t rows = 0;  ///< batch * num_heads * rows_padded
  std::size_t bytes = 0;  ///< of all
};

/// A product of matrices in the workspace with a tensor (kernels/product_sm90.cuh). The launch
/// takes as much of the grid as it has tiles for.
struct Product {
  Step step;
  std::int64_t dim = 0;     ///< columns of the result
  std::int64_t slices = 1;  ///< of Config::columns columns
};

/// One of the three backward kernels of sm_80; none where there is nothing for it to do.
struct MmaBackward {
  Step step;
  std::int64_t tiles = 0;
  std::int64_t column_slices = 1;
};

/// What of the score matrix lies in the workspace at a time: some heads of k with all query heads
/// that read them, or a chunk of the keys of one.
struct Chunks {
  std::int64_t heads_kv_at_once = 0;
  std::int64_t keys_at_once = 0;  ///< all, or a multiple of 128 of one head
  std::int64_t matrix_bytes = 0;  ///< of the matrices
  std::int64_t sums_bytes = 0;    ///< of dq over several chunks of keys; else 0
};

/// Backward of narrow heads in one kernel, which keeps nothing but f32 sums of dq: blocks of keys
/// add to them in turn. The workspace holds the statistics, the counters of turns, the sums of the
/// heads of one launch.
struct FusedBackward {
  Step step;
  std::int64_t key_blocks = 0;        ///< of one head
  std::int64_t heads_kv_at_once = 0;  ///< of one launch, with all query heads that read them
  std::int64_t heads_in_turn = 0;     ///< of those, whose blocks the grid mixes
  std::int64_t turns_bytes = 0;
  std::int64_t sums_bytes = 0;
};

/// Backward that keeps dS of a chunk in the workspace: a kernel that holds keys in place makes dk,
/// dv and dS, a product makes dq. Behind the statistics lie dS and dq's sums.
struct StoredBackward {
  Step keys;  ///< the launch takes as much of the grid as its chunk has tiles for
  Product dq;
  Chunks chunks;
};

/// Backward that keeps P and dS of a group of heads, or of a chunk of one head's keys, in the
/// workspace: the kernel scores_sm90 writes them, products make the gradients. Narrow heads of f32:
/// backward_terms_sm90 makes dk and dv itself and keeps dS alone. The workspace holds the
/// statistics, a flag, P, dS and dq's sums, then, of f32, the terms of this group's q, k, v and
/// dout.
struct UnfusedBackward {
  std::int64_t planes = 1;    ///< terms of bf16 an f32 number is split into; else 1
  std::optional<Step> split;  ///< f32 only
  Step pairs;                 ///< scores_sm90 or backward_terms_sm90
  std::optional<Product> dv, dk;
  Product dq;
  Chunks chunks;
  /// Query heads of one head of k that are computed at a time, where P and dS of all of them are
  /// too much; else 0. dk and dv are then summed over them in f32.
  std::int64_t heads_of_group = 0;
  std::int64_t dk_sums_bytes = 0, dv_sums_bytes = 0;

  bool stores_p() const { return dv.has_value(); }
};

struct BackwardDetail final : PassDetail {
  ScoreParams score;
  std::optional<BackwardStatistics> statistics;  ///< where there is a form for Hopper
  std::optional<FusedBackward> fused;            ///< at most one of the forms for Hopper
  std::optional<StoredBackward> stored;
  std::optional<UnfusedBackward> unfused;
  /// In the order of launch; delta is the workspace.
  std::optional<MmaBackward> delta, dq, dkv, dbias, dsinks;
};

/// Throws Error(unsupported) that says why where the device cannot run the problem.
Plan plan_cuda(const Problem& problem, const DeviceCaps& caps, const std::string& device,
               const TunedTable& tuned = {});

}  // namespace ingot::cuda
