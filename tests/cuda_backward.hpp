// What tests of the backward forms for Hopper share: plans of a Hopper GPU, and rows run on one.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "conformance.hpp"
#include "cuda/plan_parts.hpp"
#include "devices.hpp"

namespace ingot::cuda {

inline constexpr std::int64_t most_shared = 232448;  // bytes a block of threads may have

inline DeviceCaps hopper() {
  DeviceCaps caps;
  caps.sm = 90;
  caps.sm_count = 132;
  caps.shared_bytes = most_shared;
  return caps;
}

inline Problem hopper_problem(Dtype dtype, std::int64_t dim, std::int64_t dim_v,
                              std::int64_t seqlen = 4096) {
  Problem p;
  p.num_heads = 16, p.num_heads_kv = 4;
  p.seqlen_q = p.seqlen_k = seqlen;
  p.head_dim = dim, p.head_dim_v = dim_v;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = dtype;
  return p;
}

/// The plan keeps alive what it returns.
inline std::shared_ptr<const BackwardDetail> detail_of(const Problem& p) {
  return std::dynamic_pointer_cast<const BackwardDetail>(
      plan_cuda(p, hopper(), "cuda:0").backward.detail);
}

inline bool has_gpu() {
  const auto names = conformance::device_names(conformance::shared_context());
  return std::find(names.begin(), names.end(), "cuda:0") != names.end();
}

/// Runs one row on the GPU of this machine; skips where there is none.
inline void expect_agreement_on_gpu(const conformance::Case& row) {
  if (!has_gpu()) GTEST_SKIP() << "skipped: no NVIDIA GPU";
  const conformance::Outcome outcome =
      conformance::run_case(conformance::shared_context(), "cuda:0", row);
  EXPECT_EQ(outcome.status, conformance::Status::passed) << outcome.message;
}

}  // namespace ingot::cuda
