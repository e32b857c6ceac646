// The host's part of the CUDA back end, on a driver that needs no GPU (fake/fake_cuda.cpp): what is
// missing or too old, errors of the driver, copies of tensors in host memory, launches.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <cmath>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "core/context.hpp"
#include "core/error.hpp"
#include "cuda/cuda_backend.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/driver.hpp"
#include "cuda/kernels/mma_params.h"
#include "cuda/nvrtc.hpp"
#include "cuda_host.hpp"

namespace ingot {
namespace {

/// o = v of the same row, lse = 7: what the "kernel" of these tests computes.
void copy_values(void** arguments) {
  const auto& p = *static_cast<const MmaForwardParams*>(arguments[0]);
  if (p.o.data == nullptr) return;
  for (Index row = 0; row < p.score.seqlen_q; ++row) {
    for (Index d = 0; d < 4; ++d) {
      static_cast<float*>(p.o.data)[row * p.o.stride[2] + d * p.o.stride[3]] =
          static_cast<const float*>(p.v.data)[row * p.v.stride[2] + d * p.v.stride[3]];
    }
    if (p.lse.data != nullptr) static_cast<float*>(p.lse.data)[row * p.lse.stride[2]] = 7;
  }
}

class CudaHost : public CudaHostFixture {
 protected:
  CudaHost() { fake_->kernel = copy_values; }
};

/// One head of 8 rows of 4 floats in host memory, rows `pitch` apart.
struct HostCall {
  explicit HostCall(std::int64_t pitch = 4)
      : q(static_cast<std::size_t>(8 * pitch)), k(q), v(q), o(q.size(), -1.0F) {
    std::iota(v.begin(), v.end(), 1.0F);
    const Strides stride{0, 0, pitch, 1};
    args.q = {q.data(), stride};
    args.k = {k.data(), stride};
    args.v = {v.data(), stride};
    args.o = {o.data(), stride};
    args.lse = {lse.data(), {0, 0, 1, 1}};
  }
  std::vector<float> q, k, v, o;
  std::array<float, 8> lse{};
  ForwardArgs args;
};

TEST_F(CudaHost, ListsEveryGpu) {
  fake_->devices = 2;
  const Context context({});
  EXPECT_EQ(context.devices().front()->name(), "cuda:0");
  EXPECT_EQ(context.device("cuda").name(), "cuda:0");
  EXPECT_EQ(context.device("cuda:1").name(), "cuda:1");
  EXPECT_EQ(context.device("cuda").description(),
            "Fake GPU, compute capability 9.0, 132 multiprocessors, 80 GiB, driver of CUDA 13.0");
  EXPECT_EQ(cuda_absence(), "");
}

TEST_F(CudaHost, SaysWhyThereIsNone) {
  const auto reason = [](const char* library) {
    const Variable driver("INGOT_LIBCUDA", library);
    EXPECT_TRUE(make_cuda_backends().empty());
    return cuda_absence();
  };
  EXPECT_EQ(reason("/nowhere/libcuda.so.1"), "INGOT_LIBCUDA: cannot open /nowhere/libcuda.so.1");
  EXPECT_EQ(reason("libm.so.6"), "libcuda has no function cuInit");
  fake_->version = 11080;
  EXPECT_EQ(reason(INGOT_FAKE_CUDA),
            "the NVIDIA driver must be of CUDA 12.0 or newer, this one is of 11.8");
  *fake_ = FakeCuda{};
  fake_->devices = 0;
  EXPECT_EQ(reason(INGOT_FAKE_CUDA), "no NVIDIA GPU");
  *fake_ = FakeCuda{};
  fake_->failing = "cuInit", fake_->failure = 100;
  EXPECT_EQ(reason(INGOT_FAKE_CUDA), "no NVIDIA GPU");
  fake_->failure = 999;
  EXPECT_EQ(reason(INGOT_FAKE_CUDA),
            "cuInit: CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)");
  fake_->devices = 0;
  const Context context({});
  EXPECT_NE(message_of([&] { (void)context.device("cuda"); }, Code::invalid_argument)
                .find("got cuda: cuInit: CUDA_ERROR"),
            std::string::npos);
}

TEST_F(CudaHost, HostTensorsGoThereAndBack) {
  const Context context({});
  const BoundPlan plan = make_plan(context, "cuda", small());
  HostCall call(6);  // two elements of a gap
  forward(plan, call.args);
  for (std::size_t row = 0; row < 8; ++row) {
    for (std::size_t d = 0; d < 6; ++d) {
      EXPECT_EQ(call.o[row * 6 + d], d < 4 ? call.v[row * 6 + d] : -1.0F) << row << ", " << d;
    }
    EXPECT_EQ(call.lse[row], 7.0F);
  }
  EXPECT_EQ(fake_->allocations, fake_->frees + 1);  // the word of Faults stays
  EXPECT_EQ(fake_->contexts_pushed, 0);
}

TEST_F(CudaHost, AnEventIsWaitedForByTheCaller) {
  const Context context({});
  const BoundPlan plan = make_plan(context, "cuda", small());
  HostCall call;
  std::unique_ptr<Event> event;
  call.args.submission.event = &event;
  forward(plan, call.args);
  EXPECT_EQ(call.o[0], -1.0F);
  EXPECT_TRUE(event->done());
  event->wait();
  EXPECT_EQ(call.o[0], 1.0F);
  EXPECT_DOUBLE_EQ(event->seconds(), 0.002);
  event.reset();
  EXPECT_EQ(fake_->allocations, fake_->frees + 1);  // the word of Faults stays
}

TEST_F(CudaHost, DeviceTensorsStayThere) {
  const Context context({});
  const BoundPlan plan = make_plan(context, "cuda", small());
  HostCall call;
  auto* const q = static_cast<float*>(device_memory(128));
  auto* const o = static_cast<float*>(device_memory(128));
  std::iota(q, q + 32, 1.0F);
  call.args.q.data = call.args.k.data = call.args.v.data = q;
  call.args.o.data = o;
  call.args.lse.data = nullptr;
  forward(plan, call.args);
  EXPECT_EQ(o[31], 32.0F);
  EXPECT_EQ(fake_->allocations, 1);  // the word of Faults

  call.args.lse.data = call.lse.data();
  EXPECT_EQ(message_of([&] { forward(plan, call.args); }, Code::invalid_argument),
            "lse.data: must lie where q.data lies; q is in device memory, lse is in host memory");
  call.args.lse.data = nullptr;
  fake_->capturing = true;
  std::unique_ptr<Event> event;
  call.args.submission.event = &event;
  EXPECT_EQ(message_of([&] { forward(plan, call.args); }, Code::invalid_argument),
            "submission.event: must be NULL while the stream is captured");
  call.args.submission = {};
  void* const elsewhere = device_memory(128, 1);
  call.args.o.data = elsewhere;
  EXPECT_EQ(message_of([&] { forward(plan, call.args); }, Code::invalid_argument),
            "o.data: must be host memory or of cuda:0, is memory of cuda:1");
  for (void* memory : {static_cast<void*>(q), static_cast<void*>(o), elsewhere})
    free_device(memory);
}

TEST_F(CudaHost, ErrorsOfTheDriverHaveNames) {
  const Context context({});
  const BoundPlan plan = make_plan(context, "cuda", small());
  HostCall call;
  fake_->failing = "cuMemAllocFromPoolAsync", fake_->failure = 2;
  const std::string message = message_of([&] { forward(plan, call.args); }, Code::out_of_memory);
  EXPECT_TRUE(message.starts_with("cuda: cuda:0: allocating ")) << message;
  EXPECT_TRUE(message.ends_with(" bytes: CUDA_ERROR_OUT_OF_MEMORY (out of memory)")) << message;
  for (const char* function :
       {"cuMemcpyHtoDAsync_v2", "cuLibraryLoadData", "cuLaunchKernelEx", "cuStreamSynchronize"}) {
    fake_->failing = function, fake_->failure = 719;
    EXPECT_NE(message_of([&] { forward(plan, call.args); }, Code::device_error)
                  .find("CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)"),
              std::string::npos);
  }
  EXPECT_EQ(fake_->allocations, fake_->frees + 1);  // the word of Faults stays
  EXPECT_EQ(fake_->contexts_pushed, 0);
  fake_->failing = "";
  forward(plan, call.args);  // a failure is not kept
}

TEST_F(CudaHost, CompilesOnceAndFindsItOnDiskAfterwards) {
  HostCall call;
  for (const int compilations : {1, 1}) {
    const Context context({});
    const BoundPlan plan = make_plan(context, "cuda", small());
    forward(plan, call.args);
    forward(make_plan(context, "cuda", small()), call.args);
    EXPECT_EQ(fake_->compilations, compilations);
  }
  EXPECT_EQ(fake_->loads, 2);
  EXPECT_EQ(fake_->launches, 4);
}

TEST_F(CudaHost, AnotherCompilerCompilesAnew) {
  HostCall call;
  for (const auto& [minor, compilations] : {std::pair(0, 1), {1, 2}, {0, 2}, {1, 2}}) {
    fake_->compiler_minor = minor;
    const Context context({});
    forward(make_plan(context, "cuda", small()), call.args);
    EXPECT_EQ(fake_->compilations, compilations) << minor;
  }
}

TEST_F(CudaHost, WithoutACompilerTheLastOnesKernelsAreFound) {
  HostCall call;
  for (const int minor : {0, 1}) {
    fake_->compiler_minor = minor;
    const Context context({});
    forward(make_plan(context, "cuda", small()), call.args);
  }
  const Variable compiler("INGOT_LIBNVRTC", ""), home("CUDA_HOME", ""), path("CUDA_PATH", ""),
      venv("VIRTUAL_ENV", ""), conda("CONDA_PREFIX", "");
  try {
    (void)cuda::Nvrtc::open();
    GTEST_SKIP() << "skipped: this machine has a compiler that is found without being named";
  } catch (const Error&) {
  }
  const Context context({});
  forward(make_plan(context, "cuda", small()), call.args);
  EXPECT_EQ(fake_->compilations, 2);
  Problem other = small();
  other.causal = Causal::top_left;
  EXPECT_TRUE(
      message_of([&] { forward(make_plan(context, "cuda", other), call.args); }, Code::device_error)
          .starts_with("nvrtc: libnvrtc.so.13 or .12 is not installed"));
}

TEST_F(CudaHost, SaysWhyKernelsAreNotKept) {
  const fs::path cache = folder_ / "cache";
  fs::create_directory(cache);
  ASSERT_EQ(chmod(cache.c_str(), 0777), 0);
  const std::string text = Context({}).device("cuda").description();
  EXPECT_TRUE(
      text.ends_with(", no kernel cache: others may write to " + fs::canonical(cache).string()))
      << text;
}

TEST_F(CudaHost, ACompilersErrorCarriesItsLog) {
  const Context context({});
  HostCall call;
  fake_->compile_log = "cuda/kernels/forward_mma.cuh(7): error: expected a ;";
  const std::string message = message_of(
      [&] { forward(make_plan(context, "cuda", small()), call.args); }, Code::compile_failed);
  EXPECT_NE(message.find("forward_mma.cuh(7)"), std::string::npos);
  const Variable compiler("INGOT_LIBNVRTC", "/nowhere/libnvrtc.so");
  const Context other({});
  EXPECT_EQ(message_of([&] { forward(make_plan(other, "cuda", small()), call.args); },
                       Code::device_error),
            "nvrtc: INGOT_LIBNVRTC: cannot open /nowhere/libnvrtc.so");
}

TEST_F(CudaHost, RefusesWhatIsNotMeantForIt) {
  const Context context({});
  const BoundPlan plan = make_plan(context, "cuda", small());
  int object = 0;
  const auto refusal = [&](const Submission& submission) {
    HostCall call;
    call.args.submission = submission;
    return message_of([&] { forward(plan, call.args); }, Code::invalid_argument);
  };
  EXPECT_EQ(refusal({.encoder = &object}),
            "submission.encoder: must be NULL, device cuda:0 has streams");
  EXPECT_EQ(refusal({.memory = Memory::metal_slice}),
            "submission.memory: must be INGOT_MEMORY_ADDRESS for device cuda:0");
  EXPECT_EQ(refusal({.stream = &object}),
            "submission.stream: must be NULL with tensors in host memory");
}

TEST_F(CudaHost, TheCallDecidesWhetherTheCopyEngineCanReadItsTensors) {
  const Context context({});
  Problem p = small();
  p.seqlen_q = p.seqlen_k = 512;
  p.head_dim = p.head_dim_v = 64;
  p.q = p.k = p.v = p.o = Dtype::bf16;
  const BoundPlan plan = make_plan(context, "cuda", p);
  const auto& detail = dynamic_cast<const cuda::ForwardDetail&>(*plan.plan.forward.detail);
  ASSERT_TRUE(detail.fast && detail.any);
  fake_->kernel = nullptr;
  std::vector<std::uint16_t> memory(4 * 512 * 80);
  const auto kernel_at = [&](std::int64_t offset, std::int64_t pitch) {
    const auto at = [&](std::int64_t i) { return memory.data() + i * 512 * 80 + offset; };
    const Strides stride{0, 0, pitch, 1};
    ForwardArgs args{
        {at(0), stride}, {at(1), stride}, {at(2), stride}, {at(3), stride}, {}, {}, {}};
    forward(plan, args);
    EXPECT_TRUE(fake_->last_grid == detail.fast->step.launch.grid[0] ||
                fake_->last_grid == detail.any->step.launch.grid[0]);
    return fake_->last_block == detail.fast->step.launch.threads ? "copy engine" : "any strides";
  };
  ASSERT_NE(detail.fast->step.launch.threads, detail.any->step.launch.threads);
  EXPECT_STREQ(kernel_at(0, 64), "copy engine");
  EXPECT_STREQ(kernel_at(0, 72), "copy engine");
  EXPECT_STREQ(kernel_at(0, 66), "any strides");
  EXPECT_STREQ(kernel_at(4, 64), "any strides");
  fake_->rejects_tensor_maps = true;
  EXPECT_STREQ(kernel_at(0, 64), "any strides");
}

TEST_F(CudaHost, OldGpusAreRefusedWithTheReason) {
  fake_->compute_capability = 75;
  const Context context({});
  EXPECT_EQ(message_of([&] { make_plan(context, "cuda", small()); }, Code::unsupported),
            "unsupported: device cuda:0: compute capability must be at least 8.0, is 7.5");
}

TEST_F(CudaHost, PlansUseTheUsersTable) {
  const fs::path file = folder_ / "table.txt";
  const Variable variable("INGOT_CUDA_TUNING", file.string());
  Problem p = small();
  p.seqlen_q = p.seqlen_k = 4096;
  p.num_heads = p.num_heads_kv = 16;
  p.head_dim = p.head_dim_v = 64;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = Dtype::bf16;
  const auto plan = [&](const std::string& row) {
    std::ofstream(file) << row;
    return make_plan(Context({}), "cuda", p).plan.forward;
  };
  EXPECT_EQ(plan("Fake GPU | forward_sm90 head_dim=64 | block_n=48 |").config.block_n, 48);
  const PassPlan broken = plan("Fake GPU | forward_sm90 head_dim=64 | block_n=x |");
  EXPECT_EQ(broken.why.back(), "tuning table " + file.string() +
                                   " is not used: line 1: block_n must be a number, is x");
  EXPECT_NE(message_of([&] { plan("Fake GPU | forward_sm90 | block_n=256 stages=8 |"); },
                       Code::unsupported)
                .find(file.string() + ": a tile of forward_sm90 needs "),
            std::string::npos);
  const char* const shared = "Fake GPU | forward_sm90 | cluster=2 |";
  EXPECT_EQ(plan(shared).kernels.at(0).grid.at(0), 132);
  p.causal = Causal::bottom_right;
  EXPECT_EQ(message_of([&] { plan(shared); }, Code::unsupported),
            "unsupported: tuning table " + file.string() +
                ": blocks of a cluster share tiles of one length and one plane, cluster must be 1 "
                "with a mask or f32");
}

TEST_F(CudaHost, ALibraryThatIsNoFileIsNotWaitedFor) {
  const fs::path file = folder_ / "library";
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  HostCall call;
  const Context context({});
  const Variable compiler("INGOT_LIBNVRTC", file.string());
  EXPECT_EQ(message_of([&] { forward(make_plan(context, "cuda", small()), call.args); },
                       Code::device_error),
            "nvrtc: INGOT_LIBNVRTC: cannot open " + file.string());
  const Variable driver("INGOT_LIBCUDA", file.string());
  EXPECT_EQ(cuda_absence(), "INGOT_LIBCUDA: cannot open " + file.string());
}

TEST_F(CudaHost, ATableThatIsNoFileIsSaidAndNotWaitedFor) {
  const fs::path file = folder_ / "table.txt";
  const Variable variable("INGOT_CUDA_TUNING", file.string());
  const auto reason = [&] {
    return make_plan(Context({}), "cuda", small()).plan.forward.why.back();
  };
  const std::string not_used = "tuning table " + file.string() + " is not used: ";
  EXPECT_EQ(reason(), not_used + "No such file or directory");
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  EXPECT_EQ(reason(), not_used + "is no regular file");
  fs::remove(file);
  fs::create_directory(file);
  EXPECT_EQ(reason(), not_used + "is no regular file");
  fs::remove(file);
  std::ofstream{file};
  fs::resize_file(file, std::uintmax_t{1} << 30);
  EXPECT_EQ(reason(), not_used + "must be at most 1048576 bytes, is 1073741824");
  for (const char* none : {"off", ""}) {  // "": the one beside the cache, which is not there
    const Variable other("INGOT_CUDA_TUNING", none);
    EXPECT_EQ(reason().find("tuning table"), std::string::npos);
  }
}

}  // namespace
}  // namespace ingot
