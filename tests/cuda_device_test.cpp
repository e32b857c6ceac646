// What only a real GPU shows of the CUDA back end: tensors in its memory, graphs, several streams,
// and what a call costs. The figures are printed and never asserted. Skipped without a GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "core/context.hpp"
#include "core/error.hpp"
#include "core/half.hpp"
#include "cuda/cuda_backend.hpp"
#include "cuda/driver.hpp"

namespace ingot {
namespace {

using cuda::DeviceAddress;
using cuda::StreamHandle;

/// The driver's functions that the library itself does not need.
struct Gpu {
  std::shared_ptr<const cuda::Driver> driver = cuda::open_driver().driver;
  void* library = dlopen(name().c_str(), RTLD_NOW);
  cuda::ContextHandle context = nullptr;

  /// The library that open_driver opens, too.
  static std::string name() {
    const char* const chosen = std::getenv("INGOT_LIBCUDA");
    return chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1";
  }

  Gpu() {
    if (driver == nullptr) return;
    driver->cuDevicePrimaryCtxRetain(&context, 0);
    driver->cuCtxPushCurrent(context);
  }
  ~Gpu() {
    cuda::ContextHandle popped = nullptr;
    if (driver != nullptr) driver->cuCtxPopCurrent(&popped);
    if (driver != nullptr) driver->cuDevicePrimaryCtxRelease(0);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  template <class... Arguments>
  void call(const char* name, Arguments... arguments) const {
    auto* const function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
    if (function == nullptr) throw Error(Code::internal, name);
    driver->check(function(arguments...), name);
  }
  void free(DeviceAddress address) const {
    reinterpret_cast<int (*)(DeviceAddress)>(dlsym(library, "cuMemFree_v2"))(address);
  }
  StreamHandle stream() const {
    StreamHandle stream = nullptr;
    driver->check(driver->cuStreamCreate(&stream, cuda::stream_non_blocking), "cuStreamCreate");
    return stream;
  }
};

/// Memory of the GPU, filled from the host.
class Buffer {
 public:
  Buffer(const Gpu& gpu, const std::vector<std::uint16_t>& values)
      : gpu_(gpu), bytes_(values.size() * 2) {
    gpu_.call("cuMemAlloc_v2", &address_, bytes_);
    gpu_.call("cuMemcpyHtoD_v2", address_, static_cast<const void*>(values.data()), bytes_);
  }
  ~Buffer() { gpu_.free(address_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return reinterpret_cast<void*>(address_); }
  std::vector<std::uint16_t> read() const {
    std::vector<std::uint16_t> values(bytes_ / 2);
    gpu_.call("cuMemcpyDtoH_v2", static_cast<void*>(values.data()), address_, bytes_);
    return values;
  }

 private:
  const Gpu& gpu_;
  DeviceAddress address_ = 0;
  std::size_t bytes_;
};

std::vector<std::uint16_t> normal(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<std::uint16_t> values(count);
  for (std::uint16_t& value : values) value = to_bf16(distribution(generator));
  return values;
}

constexpr std::uint16_t nan_bits = 0x7FC1;

/// A bf16 problem with its tensors in the GPU's memory, rows `pitch` elements apart.
struct Call {
  Call(const Gpu& gpu, const Problem& p, std::int64_t pitch)
      : q(gpu, normal(elements(p.batch, p.num_heads, p.seqlen_q, pitch), 1)),
        k(gpu, normal(elements(p.batch, p.num_heads_kv, p.seqlen_k, pitch), 2)),
        v(gpu, normal(elements(p.batch, p.num_heads_kv, p.seqlen_k, pitch), 3)),
        o(gpu,
          std::vector<std::uint16_t>(elements(p.batch, p.num_heads, p.seqlen_q, pitch), nan_bits)) {
    const auto stride = [&](std::int64_t heads, std::int64_t rows) {
      return Strides{heads * rows * pitch, rows * pitch, pitch, 1};
    };
    args.q = {q.data(), stride(p.num_heads, p.seqlen_q)};
    args.k = {k.data(), stride(p.num_heads_kv, p.seqlen_k)};
    args.v = {v.data(), stride(p.num_heads_kv, p.seqlen_k)};
    args.o = {o.data(), stride(p.num_heads, p.seqlen_q)};
  }
  static std::size_t elements(std::int64_t b, std::int64_t h, std::int64_t n, std::int64_t pitch) {
    return static_cast<std::size_t>(b * h * n * pitch);
  }
  Buffer q, k, v, o;
  ForwardArgs args;
};

Problem problem(std::int64_t heads_kv, std::int64_t rows, std::int64_t keys) {
  Problem p;
  p.num_heads = 8;
  p.num_heads_kv = heads_kv;
  p.seqlen_q = rows;
  p.seqlen_k = keys;
  p.head_dim = p.head_dim_v = 128;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = Dtype::bf16;
  p.scale = 0.088F;
  return p;
}

double microseconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

class CudaDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (gpu_.driver == nullptr) GTEST_SKIP() << "skipped: no NVIDIA GPU (" << cuda_absence() << ")";
    context_.emplace(ContextOptions{});
  }
  void run(const BoundPlan& plan, const Call& call, StreamHandle stream) const {
    ForwardArgs args = call.args;
    args.submission.stream = stream;
    forward(plan, args);
    gpu_.driver->check(gpu_.driver->cuStreamSynchronize(stream), "cuStreamSynchronize");
  }

  Gpu gpu_;
  std::optional<Context> context_;
};

TEST_F(CudaDevice, WritesElementsAndNothingElse) {
  for (const std::int64_t pitch : {128, 136, 129}) {
    const Problem p = problem(8, 300, 500);
    const Call call(gpu_, p, pitch);
    run(make_plan(*context_, "cuda:0", p), call, nullptr);
    const std::vector<std::uint16_t> o = call.o.read();
    for (std::size_t i = 0; i < o.size(); ++i) {
      const bool is_element = static_cast<std::int64_t>(i) % pitch < 128;
      ASSERT_EQ(o[i] != nan_bits, is_element) << "element " << i << ", rows " << pitch << " apart";
    }
  }
}

TEST_F(CudaDevice, AGraphGivesTheSameBits) {
  for (const Problem& p : {problem(8, 512, 512), problem(2, 1, 8192)}) {
    const BoundPlan plan = make_plan(*context_, "cuda:0", p);
    const Call eager(gpu_, p, 128);
    const Call captured(gpu_, p, 128);
    const StreamHandle stream = gpu_.stream();
    void* graph = nullptr;
    void* executable = nullptr;
    gpu_.call("cuStreamBeginCapture_v2", stream, 0);
    ForwardArgs args = captured.args;
    args.submission.stream = stream;
    forward(plan, args);  // the first call of this plan: it loads its kernels while capturing
    gpu_.call("cuStreamEndCapture", stream, &graph);
    gpu_.call("cuGraphInstantiateWithFlags", &executable, graph, 0ULL);
    for (int i = 0; i < 3; ++i) gpu_.call("cuGraphLaunch", executable, stream);
    gpu_.driver->check(gpu_.driver->cuStreamSynchronize(stream), "cuStreamSynchronize");
    run(plan, eager, stream);
    EXPECT_EQ(eager.o.read(), captured.o.read()) << p.seqlen_q << " rows";
    gpu_.call("cuGraphExecDestroy", executable);
    gpu_.call("cuGraphDestroy", graph);
    gpu_.driver->cuStreamDestroy(stream);
  }
}

TEST_F(CudaDevice, ManyThreadsAndStreamsGiveTheSameBits) {
  const Problem p = problem(2, 1, 8192);
  const BoundPlan plan = make_plan(*context_, "cuda:0", p);
  const Call first(gpu_, p, 128);
  run(plan, first, nullptr);
  const std::vector<std::uint16_t> expected = first.o.read();
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (bool& result : same) {
    threads.emplace_back([&] {
      const Gpu gpu;  // makes the context current on this thread
      const Call call(gpu, p, 128);
      const StreamHandle stream = gpu.stream();
      for (int i = 0; i < 50; ++i) run(plan, call, stream);
      result = call.o.read() == expected;
      gpu.driver->cuStreamDestroy(stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, (std::array<bool, 4>{true, true, true, true}));
}

TEST_F(CudaDevice, TensorsMayNotBeMixed) {
  const Problem p = problem(8, 300, 500);
  const Call call(gpu_, p, 128);
  std::vector<std::uint16_t> host(8 * 300 * 128);
  ForwardArgs args = call.args;
  args.o.data = host.data();
  EXPECT_THROW(forward(make_plan(*context_, "cuda:0", p), args), Error);
}

TEST_F(CudaDevice, CostsOfACallArePrinted) {
  namespace fs = std::filesystem;
  std::string folder = (fs::temp_directory_path() / "ingot-cuda-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const char* before = std::getenv("INGOT_CACHE_DIR");
  const std::string cache = before == nullptr ? "" : before;
  setenv("INGOT_CACHE_DIR", (folder + "/cache").c_str(), 1);
  const Problem p = problem(8, 1024, 1024);
  const Call call(gpu_, p, 128);
  for (const char* what : {"compiled", "from the disk cache"}) {
    const Context context({});
    const double first = microseconds([&] { run(make_plan(context, "cuda:0", p), call, nullptr); });
    std::cout << "first call, " << what << ": " << first / 1e3 << " ms\n";
  }
  if (before == nullptr) {
    unsetenv("INGOT_CACHE_DIR");
  } else {
    setenv("INGOT_CACHE_DIR", cache.c_str(), 1);
  }
  fs::remove_all(folder);
  for (const Problem& shape : {problem(8, 128, 128), problem(2, 1, 8192)}) {
    const BoundPlan plan = make_plan(*context_, "cuda:0", shape);
    const Call tensors(gpu_, shape, 128);
    run(plan, tensors, nullptr);
    double best = 1e9;
    for (int round = 0; round < 50; ++round) {
      best = std::min(best, microseconds([&] {
                              for (int i = 0; i < 20; ++i) forward(plan, tensors.args);
                            }) / 20);
      gpu_.driver->cuStreamSynchronize(nullptr);
    }
    std::cout << "a call on " << shape.seqlen_q << " rows costs the host " << best << " us\n";
  }
}

}  // namespace
}  // namespace ingot
