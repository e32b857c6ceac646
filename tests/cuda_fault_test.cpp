// Waits of Hopper kernels that run out: outputs are NaN and a call says so. On a GPU with kernels
// that lack one arrival; what the host makes of it on a driver without a GPU, too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/context.hpp"
#include "core/half.hpp"
#include "cuda/cuda_backend.hpp"
#include "cuda/cuda_device.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/cuda_program.hpp"
#include "cuda/kernels/mma_params.h"
#include "cuda_host.hpp"

namespace ingot {
namespace {

constexpr std::int64_t rows = 2048;

/// A software device pays for every poll of every thread: fewer of them there, two heads, and few
/// multiprocessors, so that the plans are those of a large problem.
std::int64_t heads = 16;
std::string polls = "1u << 14";

Problem problem_of(std::int64_t dim) {
  Problem p;
  p.num_heads = p.num_heads_kv = heads;
  p.seqlen_q = p.seqlen_k = rows;
  p.head_dim = p.head_dim_v = dim;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = Dtype::bf16;
  p.scale = 0.1F;
  return p;
}

/// Tensors in host memory, the inputs all 1.
struct HostTensors {
  explicit HostTensors(std::int64_t dim) : stride{heads * rows * dim, rows * dim, dim, 1} {
    const auto count = static_cast<std::size_t>(heads * rows * dim);
    input.assign(count, to_bf16(1));
    for (auto* x : {&o, &dq, &dk, &dv}) x->assign(count, to_bf16(7));
    lse.assign(static_cast<std::size_t>(heads * rows), std::log(static_cast<float>(rows)) + 1.0F);
  }
  ForwardArgs forward() {
    ForwardArgs args;
    args.q = args.k = args.v = {input.data(), stride};
    args.o = {o.data(), stride};
    return args;
  }
  BackwardArgs backward() {
    BackwardArgs args;
    args.q = args.k = args.v = args.o = args.dout = {input.data(), stride};
    args.lse = {lse.data(), {heads * rows, rows, 1, 1}};
    args.dq = {dq.data(), stride};
    args.dk = {dk.data(), stride};
    args.dv = {dv.data(), stride};
    return args;
  }

  Strides stride;
  std::vector<std::uint16_t> input, o, dq, dk, dv;
  std::vector<float> lse;
};

std::size_t nan_count(const std::vector<std::uint16_t>& x) {
  return static_cast<std::size_t>(std::count_if(
      x.begin(), x.end(), [](std::uint16_t bits) { return std::isnan(from_bf16(bits)); }));
}

std::string arch_of(const KernelPlan& kernel) {
  for (const Literal& literal : kernel.config) {
    if (literal.name == "arch") return std::get<std::string>(literal.value);
  }
  return "";
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << "the kernels have no " << from;
  text.replace(at, from.size(), to);
}

class CudaFaults : public testing::Test {
 protected:
  CudaFaults() {
    std::string name = (fs::temp_directory_path() / "ingot-fault-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    cache_.emplace("INGOT_CACHE_DIR", folder_.string());
  }
  ~CudaFaults() override { fs::remove_all(folder_); }
  void SetUp() override {
    opened_ = cuda::open_driver();
    if (opened_.driver == nullptr) GTEST_SKIP() << "skipped: no NVIDIA GPU";
    device_.emplace(opened_.driver, 0);
    if (device_->caps().sm != 90) GTEST_SKIP() << "skipped: no NVIDIA GPU of Hopper's";
    if (device_->caps().name.find("software") != std::string::npos) heads = 2, polls = "1u << 8";
  }

  /// From now on `kernel` comes from the cache without `arrival`, and gives up soon.
  void drop(const KernelPlan& kernel, const std::string& arrival) {
    const std::string whole = cuda::kernel_source(kernel);
    std::string broken = whole;
    replace(broken, arrival, "");
    replace(broken, "most_polls = 1u << 22", "most_polls = " + polls);
    cuda::Compiler compiler(opened_.driver->version);
    const std::string arch = arch_of(kernel);
    DiskCache(folder_).store(compiler.key_of(whole, arch), compiler.compile(broken, arch));
  }
  Plan plan(const Problem& p) const { return cuda::plan_cuda(p, device_->caps(), "cuda:0"); }

  /// The last of a pass's kernels of this name.
  static const KernelPlan& kernel_of(const PassPlan& pass, const std::string& name) {
    for (const KernelPlan& kernel : pass.kernels) {
      if (kernel.file.find(name) != std::string::npos) return kernel;
    }
    throw Error(Code::internal, "no kernel " + name);
  }

  static void expect_fault(const std::function<void()>& call) {
    try {
      call();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::device_error) << error.what();
      EXPECT_NE(std::string(error.what()).find("waited in vain"), std::string::npos);
    }
  }

  fs::path folder_;
  std::optional<Variable> cache_;
  cuda::DriverResult opened_;
  std::optional<cuda::Device> device_;
};

TEST_F(CudaFaults, AForwardPassThatLacksAnArrivalGivesNaNAndAnError) {
  const Problem p = problem_of(128);
  drop(kernel_of(plan(p).forward, "forward_sm90"), "steps.release(steps.v_empty(step - 1));");
  const Context context{ContextOptions{}};
  HostTensors t(128);
  expect_fault([&] { forward(make_plan(context, "cuda:0", p), t.forward()); });
  EXPECT_EQ(nan_count(t.o), t.o.size());
  HostTensors after(64);
  forward(make_plan(context, "cuda:0", problem_of(64)), after.forward());
  EXPECT_EQ(from_bf16(after.o[0]), 1.0F);
}

TEST_F(CudaFaults, ABackwardPassThatLacksAnArrivalGivesNaNAndAnError) {
  const std::pair<std::int64_t, std::pair<const char*, const char*>> forms[] = {
      {64, {"backward_fused_sm90", "if (step > 0) steps.release(step - 1);"}},
      {128, {"backward_stored_sm90", "mbarrier_arrive(steps.q_empty(at));"}}};
  for (const auto& [dim, form] : forms) {
    SCOPED_TRACE(form.first);
    const Problem p = problem_of(dim);
    drop(kernel_of(plan(p).backward, form.first), form.second);
    const Context context{ContextOptions{}};
    HostTensors t(dim);
    expect_fault([&] { backward(make_plan(context, "cuda:0", p), t.backward()); });
    EXPECT_GT(nan_count(t.dq), 0U);  // but for queries that were done before
    EXPECT_EQ(nan_count(t.dk), t.dk.size());
    EXPECT_EQ(nan_count(t.dv), t.dv.size());
  }
}

/// In place of a kernel: it tells of a fault.
void tell(void** arguments) {
  const auto& p = *static_cast<const MmaForwardParams*>(arguments[0]);
  *p.faults.told = 1;
}

class CudaFaultsOnTheHost : public CudaHostFixture {};

TEST_F(CudaFaultsOnTheHost, AKernelThatTellsOfAFaultIsReportedOnce) {
  fake_->kernel = tell;
  fake_->compute_capability = 80;  // one kernel a call
  const std::unique_ptr<Backend> gpu = std::move(make_cuda_backends().at(0));
  Problem p;
  p.seqlen_q = p.seqlen_k = 8;
  p.head_dim = p.head_dim_v = 4;
  p.q = p.k = p.v = p.o = Dtype::f32;
  p.scale = 0.5F;
  const Plan plan = gpu->plan(p);
  std::vector<float> memory(32);
  ForwardArgs args;
  args.q = args.k = args.v = {memory.data(), {32, 32, 4, 1}};
  args.o = {memory.data(), {32, 32, 4, 1}};
  EXPECT_THROW(gpu->forward(plan, args), Error);
  fake_->kernel = nullptr;
  EXPECT_NO_THROW(gpu->forward(plan, args));
}

}  // namespace
}  // namespace ingot
