// The tile tables of the CUDA kernels: one choice per family, a pure function of the problem and
// the device. Every row says how it was found.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/problem.hpp"
#include "cuda/config.hpp"
#include "cuda/cuda_device.hpp"

namespace ingot::cuda {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

/// Does any pair of the problem fall outside its mask?
bool is_masked(const Problem& problem);

/// What a Config needs at its launch.
struct Needs {
  std::int64_t threads = 0;
  std::int64_t shared_bytes = 0;
};

/// kernels/forward_sm90.cuh. Nothing where the kernel cannot run the problem; `why_not` then says
/// why ("head_dim 576: at most 256").
std::optional<Config> choose_sm90(const Problem& problem, const DeviceCaps& caps,
                                  std::string& why_not);
Needs needs_sm90(const Config& config);

/// kernels/forward_mma.cuh or decode.cuh: runs every problem of f32, f16 and bf16.
struct MmaChoice {
  Config config;            ///< `split` where splits > 1
  std::int64_t splits = 1;  ///< pieces of the keys
  /// kernels/decode_sm90.cuh, for the same pieces: where the copy engine can address k and v.
  std::optional<Config> engine;
  std::optional<Config> combine;
};
MmaChoice choose_mma(const Problem& problem, const DeviceCaps& caps);
Needs needs_mma(const Config& config);

/// kernels/delta.cuh, then backward_dq.cuh and backward_dkv.cuh: every problem, every device. With
/// bias or sinks backward_dbias.cuh and backward_dsinks.cuh too.
struct MmaBackwardChoice {
  Config delta, dq, dkv;
  std::optional<Config> dbias, dsinks;
};
MmaBackwardChoice choose_mma_backward(const Problem& problem, const DeviceCaps& caps);
Needs needs_mma_backward(const Config& config);

/// kernels/backward_fused_sm90.cuh. Nothing where it cannot run the problem; `why_not` then says
/// why.
struct FusedChoice {
  Config config;
  std::int64_t heads_in_turn = 1;  ///< key heads whose blocks the grid mixes
};
std::optional<FusedChoice> choose_fused(const Problem& problem, std::string& why_not);
Needs needs_fused(const Config& config);

/// kernels/backward_stored_sm90.cuh or backward_stored_wide_sm90.cuh. Nothing where the stored form
/// cannot run the problem or is not worth its launches; `why_not` then says why.
std::optional<Config> choose_stored(const Problem& problem, std::string& why_not);
Needs needs_stored(const Config& config);

/// kernels/scores_sm90.cuh. Nothing where the unfused form is not worth its launches; `why_not`
/// then says why.
std::optional<Config> choose_scores(const Problem& problem, std::string& why_not);
Needs needs_scores(const Config& config);

/// kernels/backward_terms_sm90.cuh, where heads of f32 are narrow enough.
std::optional<Config> choose_terms(const Problem& problem, std::string& why_not);
Needs needs_terms(const Config& config);

/// kernels/product_sm90.cuh: a result of `dim` columns whose rows are keys or queries, from
/// matrices of `planes` terms.
Config choose_product(const Problem& problem, std::int64_t dim, Dtype output, bool by_keys,
                      std::int64_t planes);
Needs needs_product(const Config& config);
/// Narrower tiles where those of the table would leave multiprocessors idle: for `rows` rows of
/// each of `heads` heads.
void fill_rounds(Config& product, std::int64_t rows, std::int64_t heads,
                 std::int64_t multiprocessors);

/// kernels/statistics.cuh: lse and delta of the queries for the backward kernels of Hopper.
Config choose_statistics(const Problem& problem, const DeviceCaps& caps);

}  // namespace ingot::cuda
