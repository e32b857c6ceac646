// What the plans of the passes have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda/cuda_plan.hpp"
#include "cuda/tuning.hpp"

namespace ingot::cuda {

inline std::string text(std::int64_t n) { return std::to_string(n); }

ScoreParams score_of(const Problem& problem);
/// Throws Error(unsupported) where the grid cannot be had.
Step make_step(const Config& config, const Needs& needs, std::int64_t blocks);
/// What `ingot explain` shows of a plan's main kernel.
ingot::Config summary_of(const Step& step, std::int64_t splits);
std::string tile_sentence(const Config& config);

Product plan_product(const Problem& problem, std::int64_t dim, Dtype output, bool by_keys,
                     std::int64_t planes);

/// One way to run the backward pass, for explain and the caller's workspace. Points into the
/// BackwardDetail it was made with.
struct Form {
  std::vector<const Step*> steps;  ///< in the order of launch
  const Step* main = nullptr;
  std::size_t workspace_bytes = 0;
  std::string why;
};

/// Bytes besides the matrices.
struct ChunkNeeds {
  std::int64_t per_head = 0;  ///< of each head of k in it
  std::int64_t matrices = 1;  ///< times their planes
  /// Of blocks that take one tile each, to fill rounds of multiprocessors; 0: blocks stay.
  std::int64_t tiles_of_head = 0, multiprocessors = 0;
};
/// The largest chunks within the problem's limit of workspace; nothing where not even 128 keys fit.
std::optional<Chunks> cut_chunks(const Problem& problem, const ChunkNeeds& needs,
                                 const Product& dq);

/// Adds the relay to `detail`, which has its statistics, within the problem's limit of workspace.
/// Nothing where it cannot be had or does not pay; `why_not` then says why.
std::optional<Form> plan_relay(const Problem& problem, const DeviceCaps& caps,
                               BackwardDetail& detail, std::string& why_not);
/// Adds the stored form to `detail`, which has its statistics, within the problem's limit of
/// workspace. Nothing where it cannot be had or does not pay; `why_not` then says why.
std::optional<Form> plan_stored(const Problem& problem, const DeviceCaps& caps,
                                BackwardDetail& detail, std::string& why_not);
/// The same with the unfused form.
std::optional<Form> plan_unfused(const Problem& problem, const DeviceCaps& caps,
                                 BackwardDetail& detail, std::string& why_not);

PassPlan plan_backward(const Problem& problem, const DeviceCaps& caps);

}  // namespace ingot::cuda
