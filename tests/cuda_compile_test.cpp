// Every kernel that the tuning tables ask for compiles, keeps its registers out of memory, and its
// matrix products run without the compiler serialising them. Needs NVRTC, no GPU. The kernels are
// those of plans for a grid of problems; INGOT_TEST_FULL=1 widens the grid.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/cuda_program.hpp"

namespace ingot::cuda {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool under_sanitizer = true;
#else
constexpr bool under_sanitizer = false;
#endif

/// Null where NVRTC is not installed.
const Nvrtc* nvrtc() {
  static const std::shared_ptr<const Nvrtc> library = []() -> std::shared_ptr<const Nvrtc> {
    try {
      return Nvrtc::open();
    } catch (const Error& error) {
      std::cerr << error.what() << '\n';
      return nullptr;
    }
  }();
  return library.get();
}

bool is_full() {
  const char* value = std::getenv("INGOT_TEST_FULL");
  return value != nullptr && std::string(value) == "1";
}

struct Kernel {
  std::string name;
  KernelPlan plan;
  std::string arch;

  friend void PrintTo(const Kernel& kernel, std::ostream* os) { *os << kernel.name; }
};

DeviceCaps caps_of(int sm) {
  DeviceCaps caps;
  caps.sm = sm;
  caps.sm_count = sm == 90 ? 132 : 108;
  caps.shared_bytes = sm == 90 ? 232448 : sm == 80 ? 166912 : 101376;
  return caps;
}

/// The shape of a problem, without dtype and variant.
struct Shape {
  std::int64_t heads, heads_kv, rows, keys, dim, dim_v;
};

std::vector<Shape> shapes(bool full) {
  std::vector<Shape> all;
  std::vector<std::int64_t> dims{64, 128, 256};
  if (full) dims = {16, 32, 40, 64, 72, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512};
  for (const std::int64_t dim : dims) all.push_back({16, 16, 4096, 4096, dim, dim});
  if (!full) all.push_back({8, 8, 4096, 4096, 512, 512});
  all.push_back({128, 128, 4096, 4096, 192, 128});
  if (full) all.push_back({128, 1, 4096, 4096, 576, 512});
  all.push_back({32, 8, 1, 8192, 128, 128});
  if (full) all.push_back({32, 8, 16, 8192, 128, 128});
  return all;
}

Problem problem_of(const Shape& s, Dtype dtype, Causal causal, float softcap) {
  Problem p;
  p.num_heads = s.heads;
  p.num_heads_kv = s.heads_kv;
  p.seqlen_q = s.rows;
  p.seqlen_k = s.keys;
  p.head_dim = s.dim;
  p.head_dim_v = s.dim_v;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = dtype;
  p.causal = causal;
  p.scale = 0.1F;
  p.softcap = softcap;
  return p;
}

/// By text: plans for different problems often share a kernel.
using Kernels = std::map<std::string, Kernel>;

void add(Kernels& kernels, const Step& step, const std::string& label) {
  const std::string arch(step.config.arch);
  const std::string name = std::string(step.config.kernel) + "_" + arch + "_" + label;
  kernels.emplace(arch + kernel_source(step.kernel), Kernel{name, step.kernel, arch});
}

std::string part_label(const Parts& parts) {
  std::string label;
  if (parts.alibi) label += "_alibi";
  if (parts.bias) label += "_bias";
  if (parts.mask) label += "_mask";
  if (parts.sinks) label += "_sinks";
  if (parts.dropout > 0) label += "_dropout";
  return label;
}

std::string label_of(const Problem& p) {
  return std::string(name(p.q)) + "_" + std::to_string(p.head_dim) + "_" +
         std::to_string(p.head_dim_v) + "_" + std::to_string(p.num_heads) + "_heads_" +
         std::to_string(p.seqlen_q) + "_rows" + (p.causal == Causal::none ? "" : "_causal") +
         (p.softcap > 0 ? "_softcap" : "") + (p.precision == Precision::high ? "_high" : "") +
         (p.dq != p.q ? "_to_" + std::string(name(p.dq)) : "") + part_label(p.parts);
}

void add_plan(Kernels& kernels, const Problem& p, int sm) {
  const Plan plan = plan_cuda(p, caps_of(sm), "cuda:0");
  const auto& detail = dynamic_cast<const ForwardDetail&>(*plan.forward.detail);
  const std::string label = label_of(p);
  if (detail.fast) add(kernels, detail.fast->step, label);
  if (detail.fast && detail.fast->split) add(kernels, *detail.fast->split, label);
  add(kernels, detail.any->step, label);
  if (detail.any->engine) add(kernels, *detail.any->engine, label);
  if (detail.any->combine) add(kernels, *detail.any->combine, label);
}

std::string arch_of(const KernelPlan& kernel) {
  for (const Literal& literal : kernel.config) {
    if (literal.name == "arch") return std::get<std::string>(literal.value);
  }
  return "";
}

/// The kernels of the backward pass, whichever form the plan takes, and those for any strides.
void add_backward(Kernels& kernels, const Problem& p, int sm) {
  const Plan plan = plan_cuda(p, caps_of(sm), "cuda:0");
  const auto& detail = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
  std::vector<KernelPlan> all = plan.backward.kernels;
  for (const auto* any : {&detail.delta, &detail.dq, &detail.dkv, &detail.dbias, &detail.dsinks}) {
    if (*any) all.push_back((*any)->step.kernel);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string stem = all[i].file.substr(all[i].file.rfind('/') + 1);
    const std::string name = stem.substr(0, stem.rfind('.')) + "_" + std::to_string(i) + "_" +
                             label_of(p) + "_backward_" + std::to_string(sm);
    const std::string arch = arch_of(all[i]);
    kernels.emplace(arch + kernel_source(all[i]), Kernel{name, all[i], arch});
  }
}

void add_backward(Kernels& kernels, bool full) {
  std::vector<std::int64_t> dims{64, 128, 256, 320, 512};
  if (full) {
    dims = {16, 32, 40, 64, 72, 80, 96, 112, 128, 160, 192, 224, 240, 256, 264, 320, 512, 1024};
  }
  for (const std::int64_t dim : dims) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
      if (!full && dtype == Dtype::f16 && dim != 128) continue;
      if (!full && dtype == Dtype::f32 && dim > 128) continue;
      for (const Causal causal : {Causal::none, Causal::bottom_right}) {
        for (const float softcap : {0.0F, 20.0F}) {
          if (!full && softcap > 0 && causal == Causal::none) continue;
          Problem p = problem_of({4, 2, 4096, 4096, dim, dim}, dtype, causal, softcap);
          add_backward(kernels, p, 90);
          if (full) add_backward(kernels, p, 80);
          if (dtype != Dtype::f32) continue;
          p.precision = Precision::high;
          add_backward(kernels, p, 90);
        }
      }
    }
  }
  add_backward(kernels, problem_of({4, 2, 4096, 4096, 192, 128}, Dtype::bf16, Causal::none, 0), 90);
  // Enough tiles of keys for the form that keeps them in place.
  for (const float softcap : {0.0F, 20.0F}) {
    for (const Causal causal : {Causal::none, Causal::bottom_right}) {
      add_backward(kernels, problem_of({8, 8, 4096, 4096, 64, 64}, Dtype::f32, causal, softcap),
                   90);
    }
  }
  for (const auto& [dim, dim_v] : {std::pair{64, 64}, {7, 64}, {64, 40}}) {
    Problem p = problem_of({4, 2, 4096, 4096, dim, dim_v}, Dtype::f16, Causal::bottom_right, 20.0F);
    p.dq = p.dk = p.dv = Dtype::f32;
    add_backward(kernels, p, 90);
  }
}

/// A part at a time; together they may need more registers than there are.
void add_parts(Kernels& kernels, bool full) {
  const auto add = [&](const Parts& parts, Dtype dtype, std::int64_t dim, int sm) {
    Problem p = problem_of({4, 2, 4096, 4096, dim, dim}, dtype, Causal::bottom_right, 0);
    p.parts = parts;
    add_plan(kernels, p, sm);
    add_backward(kernels, p, sm);
    p.seqlen_q = 1;
    add_plan(kernels, p, sm);
  };
  Parts bias, mask, alibi, sinks, dropout;
  bias.bias = true, bias.bias_dtype = bias.dbias_dtype = Dtype::bf16;
  bias.bias_shape = {1, 4, 4096, 4096};
  mask.mask = alibi.alibi = sinks.sinks = true;
  dropout.dropout = 0.1F;
  add(bias, Dtype::bf16, 128, 90);
  add(dropout, Dtype::bf16, 64, 90);
  add(sinks, Dtype::f32, 64, 80);
  if (!full) return;
  for (const int sm : {80, 90}) {
    for (const std::int64_t dim : {64, 128}) {
      for (const Parts& parts : {bias, mask, alibi, sinks, dropout}) {
        for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) add(parts, dtype, dim, sm);
      }
    }
  }
}

std::vector<Kernel> all_kernels() {
  const bool full = is_full();
  Kernels kernels;
  for (const Shape& shape : shapes(full)) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
      if (!full && dtype == Dtype::f16 && shape.dim != 128) continue;
      for (const Causal causal : {Causal::none, Causal::bottom_right}) {
        add_plan(kernels, problem_of(shape, dtype, causal, 0), 90);
        if (full || shape.dim == 128) {
          add_plan(kernels, problem_of(shape, dtype, causal, full ? 30.0F : 0), full ? 90 : 80);
        }
        if (full) add_plan(kernels, problem_of(shape, dtype, causal, 0), 80);
        if (dtype != Dtype::f32) continue;
        Problem high = problem_of(shape, dtype, causal, full ? 30.0F : 0);
        high.precision = Precision::high;
        add_plan(kernels, high, 90);
      }
    }
  }
  add_backward(kernels, full);
  add_parts(kernels, full);
  std::vector<Kernel> all;
  std::map<std::string, int> count;  // other texts of the same name: tiles differ
  for (auto& [source, kernel] : kernels) {
    const int others = count[kernel.name]++;
    if (others > 0) kernel.name += "_text_" + std::to_string(others + 1);
    all.push_back(std::move(kernel));
  }
  return all;
}

class CudaCompile : public testing::TestWithParam<Kernel> {};

TEST_P(CudaCompile, WithoutSpillsOrSerialisation) {
  if (under_sanitizer) GTEST_SKIP() << "skipped: NVRTC is not the one under test";
  if (nvrtc() == nullptr) GTEST_SKIP() << "skipped: NVRTC is not installed";
  const Kernel& kernel = GetParam();
  const Compiled compiled =
      nvrtc()->compile(kernel_source(kernel.plan), compile_options(kernel.arch));
  EXPECT_FALSE(compiled.cubin.empty());
  const ResourceReport report = read_report(compiled.log);
  EXPECT_GT(report.registers, 0) << compiled.log;
  EXPECT_EQ(report.spill_bytes, 0) << compiled.log;
  EXPECT_EQ(report.serialised, std::vector<std::string>{});
}

std::string test_name(const testing::TestParamInfo<Kernel>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Tables, CudaCompile, testing::ValuesIn(all_kernels()), test_name);

TEST(CudaReport, ReadsTheAssemblersLog) {
  const ResourceReport report = read_report(
      "ptxas info    : 0 bytes gmem\n"
      "ptxas info    : Function properties for ingot_kernel\n"
      "    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
      "ptxas info    : Used 168 registers, used 1 barriers\n"
      "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are "
      "serialized due to function call in the function 'ingot_kernel'\n"
      "ptxas info    : (C7519) something else\n");
  EXPECT_EQ(report.registers, 168);
  EXPECT_EQ(report.spill_bytes, 20);
  EXPECT_EQ(report.stack_bytes, 16);
  EXPECT_EQ(report.serialised.size(), 1U);
}

}  // namespace
}  // namespace ingot::cuda
