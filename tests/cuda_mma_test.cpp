// The tile tables of the kernels for sm_80 and newer: what they choose fits every device, covers
// all columns and compiles without spilling registers. Needs no GPU.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/source.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/cuda_program.hpp"
#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {
namespace {

DeviceCaps caps_of(int sm) {
  DeviceCaps caps;
  caps.sm = sm;
  caps.sm_count = sm == 90 ? 132 : 108;
  caps.shared_bytes = sm == 90 ? 232448 : sm == 80 ? 166912 : 101376;
  return caps;
}

Problem problem_of(std::int64_t rows, std::int64_t keys, std::int64_t dim, std::int64_t dim_v,
                   Dtype dtype) {
  Problem p;
  p.batch = 2;
  p.num_heads = 8;
  p.num_heads_kv = 2;
  p.seqlen_q = rows;
  p.seqlen_k = keys;
  p.head_dim = dim;
  p.head_dim_v = dim_v;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = dtype;
  p.scale = 0.1F;
  return p;
}

/// Every head_dim that has a tile of its own, and the odd ones between.
std::vector<std::int64_t> dims() {
  return {1, 5, 16, 17, 33, 40, 64, 72, 80, 96, 112, 128, 144, 160, 192, 256, 320, 512, 576, 1024};
}

template <class F>
void for_each_problem(F f) {
  for (const int sm : {80, 86, 89, 90, 100, 120}) {
    for (const std::int64_t dim : dims()) {
      for (const std::int64_t dim_v : {dim, std::int64_t{128}}) {
        for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
          for (const std::int64_t rows : {1, 7, 30, 100, 5000}) {
            const Problem p = problem_of(rows, 5000, dim, dim_v, dtype);
            SCOPED_TRACE("sm " + std::to_string(sm) + " head_dim " + std::to_string(dim) + " x " +
                         std::to_string(dim_v) + " rows " + std::to_string(rows) + " " +
                         std::string(name(dtype)));
            f(p, caps_of(sm));
          }
        }
      }
    }
  }
}

/// Tiles of matrix instructions, chunks that make up whole slices.
void expect_whole_tiles(const Config& c) {
  EXPECT_EQ(c.block_m % (c.kernel == "decode" ? mma_rows : mma_rows * c.warps), 0);
  EXPECT_EQ(c.block_n % mma_cols, 0);
  EXPECT_EQ(c.chunk % mma_cols, 0);
  EXPECT_EQ(c.chunk_v % mma_cols, 0);
  EXPECT_GE(c.stages, 2);
}

TEST(CudaMmaTables, ForwardFitsAndCovers) {
  for_each_problem([](const Problem& p, const DeviceCaps& caps) {
    const MmaChoice choice = choose_mma(p, caps);
    const Config& c = choice.config;
    expect_whole_tiles(c);
    EXPECT_LE(needs_mma(c).shared_bytes, caps.shared_bytes);
    EXPECT_GT(c.columns, 0);
    EXPECT_EQ(c.columns % c.chunk_v, 0);
    EXPECT_EQ(c.split, choice.splits > 1);
    EXPECT_EQ(choice.combine.has_value(), choice.splits > 1);
    if (choice.engine) {
      EXPECT_LE(needs_mma(*choice.engine).shared_bytes, caps.shared_bytes);
      EXPECT_GE(choice.engine->stages, 2);
      EXPECT_GE(choice.engine->columns, p.head_dim_v);
    }
    EXPECT_LE(choice.splits, ceil_div(p.seqlen_k, c.block_n)) << "an empty piece of the keys";
  });
}

TEST(CudaMmaTables, BackwardFitsAndCovers) {
  for_each_problem([](const Problem& p, const DeviceCaps& caps) {
    const MmaBackwardChoice choice = choose_mma_backward(p, caps);
    for (const Config* c : {&choice.dq, &choice.dkv}) {
      expect_whole_tiles(*c);
      EXPECT_LE(needs_mma_backward(*c).shared_bytes, caps.shared_bytes);
      EXPECT_GT(c->columns, 0);
      EXPECT_EQ(c->columns % c->chunk, 0);
      EXPECT_EQ(c->columns_v % c->chunk_v, 0);
    }
    EXPECT_GT(choice.dkv.columns_v, 0);
    EXPECT_EQ(choice.dq.columns_v, 0);
  });
}

TEST(CudaMmaTables, FewRowsShareKeysAmongManyBlocks) {
  Problem p = problem_of(1, 8192, 128, 128, Dtype::bf16);
  p.batch = 1;
  const DeviceCaps caps = caps_of(90);
  const MmaChoice one = choose_mma(p, caps);
  EXPECT_EQ(one.config.kernel, "decode");
  EXPECT_TRUE(one.config.packed);
  EXPECT_GT(one.splits * p.num_heads_kv, caps.sm_count / 2);
  p.batch = 4096;
  EXPECT_EQ(choose_mma(p, caps).splits, 1);
  p.batch = 1;
  p.seqlen_k = 16;
  EXPECT_EQ(choose_mma(p, caps).splits, 1);
}

TEST(CudaMmaTables, ProductsAreOf16BitNumbersOnlyWhereAllInputsAre) {
  Problem p = problem_of(100, 100, 64, 64, Dtype::f16);
  EXPECT_EQ(choose_mma(p, caps_of(90)).config.element, TypeName{"f16"});
  p.dout = Dtype::bf16;
  EXPECT_EQ(choose_mma(p, caps_of(90)).config.element, TypeName{"f16"});
  EXPECT_EQ(choose_mma_backward(p, caps_of(90)).dq.element, TypeName{"float"});
  p.v = Dtype::bf16;
  EXPECT_EQ(choose_mma(p, caps_of(90)).config.element, TypeName{"float"});
}

/// "A new sequence length never compiles anything": a handful of kernels serves all lengths.
TEST(CudaMmaTables, LengthsShareKernels) {
  std::set<std::string> sources;
  for (std::int64_t rows = 1; rows < 4000; rows += 13) {
    const Problem p = problem_of(rows, rows + 5, 128, 128, Dtype::bf16);
    std::string text;
    for (const Literal& l : literals_of(choose_mma(p, caps_of(90)).config)) {
      text += emit_config(std::span(&l, 1), "");
    }
    sources.insert(text);
  }
  EXPECT_LE(sources.size(), 10U);
}

/// Null where NVRTC is not installed.
std::shared_ptr<const Nvrtc> open_nvrtc() {
  try {
    return Nvrtc::open();
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return nullptr;
  }
}

void expect_compiles(const Nvrtc& nvrtc, const Config& config) {
  KernelPlan kernel;
  kernel.file = "cuda/kernels/" + std::string(config.kernel) + ".cuh";
  kernel.config = literals_of(config);
  const Compiled compiled = nvrtc.compile(kernel_source(kernel), compile_options(config.arch));
  const ResourceReport report = read_report(compiled.log);
  EXPECT_GT(report.registers, 0) << compiled.log;
  EXPECT_EQ(report.spill_bytes, 0) << kernel.file << '\n' << compiled.log;
  EXPECT_EQ(compiled.log.find("warning"), std::string::npos) << compiled.log;
}

TEST(CudaMmaCompile, BackwardWithoutSpills) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "skipped: NVRTC is not the one under test";
#endif
  const std::shared_ptr<const Nvrtc> nvrtc = open_nvrtc();
  if (nvrtc == nullptr) GTEST_SKIP() << "skipped: NVRTC is not installed";
  const char* full = std::getenv("INGOT_TEST_FULL");
  const bool all = full != nullptr && std::string(full) == "1";
  std::vector<std::int64_t> wanted{64, 128};
  if (all) wanted = {64, 96, 128, 192, 256, 512};
  std::vector<int> devices{90};
  if (all) devices = {80, 86, 90, 120};
  for (const int sm : devices) {
    for (const std::int64_t dim : wanted) {
      for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
        Problem p = problem_of(4096, 4096, dim, dim, dtype);
        p.causal = Causal::bottom_right;
        SCOPED_TRACE("sm " + std::to_string(sm) + " head_dim " + std::to_string(dim));
        const MmaBackwardChoice choice = choose_mma_backward(p, caps_of(sm));
        for (const Config* c : {&choice.delta, &choice.dq, &choice.dkv}) {
          expect_compiles(*nvrtc, *c);
        }
      }
    }
  }
}

}  // namespace
}  // namespace ingot::cuda
