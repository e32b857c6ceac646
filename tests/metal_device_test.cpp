// The Metal device below attention: compiling, caching, buffers, submission and failures, with a
// kernel of three lines.
#if defined(INGOT_WITH_METAL)
#include "metal/device/call.hpp"

#include <fstream>
#include <thread>

#include "metal_support.hpp"

namespace ingot::metal {
namespace {

namespace fs = std::filesystem;

constexpr const char* doubling = R"(#include <metal_stdlib>
kernel void twice(constant int& n [[buffer(0)]], device const float* x [[buffer(1)]],
                  device float* y [[buffer(4)]], uint i [[thread_position_in_grid]]) {
  if (int(i) < n) y[i] = 2 * x[i];
}
)";

constexpr int x_index = 1, y_index = 4;

KernelText text_of_twice(const std::string& source = doubling) {
  return {"metal/kernels/twice.metal", "twice", source, 64, 0};
}

Dispatch dispatch_twice(Device& device, std::int32_t n) {
  Dispatch dispatch;
  dispatch.pipeline = device.pipeline("twice", [] { return text_of_twice(); });
  const auto bytes = std::as_bytes(std::span(&n, 1));
  dispatch.params.assign(bytes.begin(), bytes.end());
  dispatch.grid = {(n + 63) / 64, 1, 1};
  dispatch.threads = 64;
  return dispatch;
}

View row_of(std::int64_t n) { return {{1, 1, 1, n}, {n, n, n, 1}, 4}; }

class MetalDevice : public testing::Test {
 protected:
  void SetUp() override {
    const AutoreleaseScope scope;
    auto device = usable_device();
    INGOT_SKIP_UNLESS(device, "skipped: no Metal device");
    device_ = std::make_unique<Device>(std::move(device));
  }

  std::vector<float> numbers(int n) const {
    std::vector<float> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
    return x;
  }

  /// y = 2 x through host memory.
  void run(const std::vector<float>& x, std::vector<float>& y, const Submission& submission = {}) {
    const AutoreleaseScope scope;
    const auto n = static_cast<std::int64_t>(x.size());
    Call call(*device_, "metal:0", submission);
    const Strides stride{n, n, n, 1};
    call.bind_input(x_index, "x", {x.data(), stride}, row_of(n));
    call.bind_output(y_index, "y", {y.data(), stride}, row_of(n));
    call.add(dispatch_twice(*device_, static_cast<std::int32_t>(n)));
    call.submit();
  }

  CacheFolder cache_;
  std::unique_ptr<Device> device_;
};

TEST_F(MetalDevice, CapsNameTheChip) {
  EXPECT_GE(device_->caps().family, 7);
  EXPECT_GE(device_->caps().os_major, oldest_macos);
  EXPECT_GE(device_->caps().max_threadgroup_bytes, 32768);
#if defined(INGOT_METAL_IN_SOFTWARE)
  EXPECT_EQ(device_->caps().cores, static_cast<int>(softmetal_gpu_core_count()));
#endif
}

TEST_F(MetalDevice, CompilesInTheLanguageOfItsSystem) {
  const AutoreleaseScope scope;
  const Language language = language_of(device_->caps());
  const std::string version = std::to_string(100 * language.major + 10 * language.minor);
  const std::string guard =
      "#if __METAL_VERSION__ != " + version + "\n#error another version\n#endif\n";
  EXPECT_NE(device_->pipeline("a", [&] { return text_of_twice(guard + doubling); }), nullptr);
}

TEST_F(MetalDevice, RunsAKernelOnHostMemory) {
  const std::vector<float> x = numbers(1000);
  std::vector<float> y(x.size(), -1);
  run(x, y);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], 2 * x[i]) << i;
}

TEST_F(MetalDevice, CompilesAKernelOnce) {
  const AutoreleaseScope scope;
  int made = 0;
  const auto make = [&] { return ++made, text_of_twice(); };
  const auto first = device_->pipeline("a", make);
  EXPECT_EQ(first, device_->pipeline("a", make));
  EXPECT_EQ(made, 1);
}

TEST_F(MetalDevice, CompileFailureCarriesFileLineAndLog) {
  const AutoreleaseScope scope;
  const std::string broken =
      "#include <metal_stdlib>\n#line 7 \"metal/kernels/twice.metal\"\nkernel void twice() { int x "
      "= nothing; }\n";
  const Error error =
      thrown_by([&] { device_->pipeline("broken", [&] { return text_of_twice(broken); }); });
  EXPECT_EQ(error.code(), Code::compile_failed);
  const std::string text = error.what();
  EXPECT_NE(text.find("metal/kernels/twice.metal:7"), std::string::npos) << text;
  EXPECT_NE(text.find("nothing"), std::string::npos) << text;
}

TEST_F(MetalDevice, MissingFunctionIsACompileFailure) {
  const AutoreleaseScope scope;
  const Error error = thrown_by([&] {
    device_->pipeline("empty", [&] { return text_of_twice("#include <metal_stdlib>\n"); });
  });
  EXPECT_EQ(error.code(), Code::compile_failed);
  EXPECT_NE(std::string(error.what()).find("twice"), std::string::npos) << error.what();
}

TEST_F(MetalDevice, TooFewThreadsAreRefused) {
  const AutoreleaseScope scope;
  const Error error = thrown_by([&] {
    device_->pipeline("wide", [&] {
      KernelText text = text_of_twice();
      text.threads = 4096;
      return text;
    });
  });
  EXPECT_EQ(error.code(), Code::unsupported);
  EXPECT_NE(std::string(error.what()).find("needs 4096 threads"), std::string::npos)
      << error.what();
}

TEST_F(MetalDevice, ArchiveIsWrittenAndFound) {
  const AutoreleaseScope scope;
  NS::Error* error = nullptr;
  const auto library =
      NS::TransferPtr(device_->handle()->newLibrary(to_string(doubling), nullptr, &error));
  ASSERT_TRUE(library) << ingot::metal::text_of(error);
  const auto function = NS::TransferPtr(library->newFunction(to_string("twice")));
  constexpr int threads = 64;
  const DiskCache cache;
  const auto make = [&] {
    return make_pipeline(device_->handle(), function.get(), threads, cache, "key", &error);
  };
  EXPECT_FALSE(cache.find("key"));
  EXPECT_TRUE(make());
  const auto archive = cache.find("key");
  ASSERT_TRUE(archive) << "another process would compile again";
  EXPECT_GT(archive->size(), 10U);
  EXPECT_EQ(cache_.files().size(), 1U) << "and nothing else is left in the folder";
  if (inject("pipeline-failure", 1)) {  // of the second pipeline that is made
    EXPECT_TRUE(make()) << "not found in the archive at once";
    EXPECT_TRUE(make());  // with an archive that fails
  }
}

TEST_F(MetalDevice, DamagedArchiveIsAMiss) {
  const AutoreleaseScope scope;
  (void)device_->pipeline("a", [] { return text_of_twice(); });
  ASSERT_EQ(cache_.files().size(), 1U);
  const fs::path file = cache_.files().front();
  for (const char* damage : {"", "nonsense"}) {
    std::ofstream(file, std::ios::trunc) << damage;
    Device again(NS::RetainPtr(device_->handle()));
    EXPECT_NE(again.pipeline("a", [] { return text_of_twice(); }), nullptr);
    EXPECT_GT(fs::file_size(file), 10U) << "was not written again";
  }
}

TEST_F(MetalDevice, ArchiveThatCannotBeWrittenIsNoError) {
  const AutoreleaseScope scope;
  ::setenv("INGOT_CACHE_DIR", "off", 1);
  Device off(NS::RetainPtr(device_->handle()));
  EXPECT_NE(off.pipeline("a", [] { return text_of_twice(); }), nullptr);
  EXPECT_TRUE(cache_.files().empty());
}

TEST_F(MetalDevice, InjectedCompileFailure) {
  const AutoreleaseScope scope;
  INGOT_SKIP_UNLESS(inject("compile-failure"), "skipped: failures cannot be made to order here");
  const auto get = [&] { return device_->pipeline("a", [] { return text_of_twice(); }); };
  EXPECT_EQ(thrown_by(get).code(), Code::compile_failed);
  EXPECT_NE(get(), nullptr) << "a failure is not kept";
  EXPECT_TRUE(inject("pipeline-failure", 0, 2));  // from the archive, and anew
  const Error error = thrown_by([&] { device_->pipeline("b", [] { return text_of_twice(); }); });
  EXPECT_EQ(error.code(), Code::compile_failed);
}

TEST_F(MetalDevice, FailuresOfTheCommandBufferAreTold) {
  const std::vector<float> x = numbers(100);
  std::vector<float> y(x.size());
  const std::pair<const char*, Code> failures[] = {{"device-error", Code::device_error},
                                                   {"timeout", Code::device_error},
                                                   {"gpu-out-of-memory", Code::out_of_memory}};
  run(x, y);
  for (const auto& [what, code] : failures) {
    std::ranges::fill(y, -1.0F);
    INGOT_SKIP_UNLESS(inject(what), "skipped: failures cannot be made to order here");
    const Error error = thrown_by([&] { run(x, y); });
    EXPECT_EQ(error.code(), code) << what << ": " << error.what();
    EXPECT_NE(std::string(error.what()).find("device metal:0: "), std::string::npos);
    EXPECT_EQ(y[1], -1) << "results of a failed call are not copied";
    EXPECT_NO_THROW(run(x, y)) << "the next call works";
    EXPECT_EQ(y[1], 2);
  }
}

TEST_F(MetalDevice, FailureReachesTheEvent) {
  const std::vector<float> x = numbers(100);
  std::vector<float> y(x.size());
  INGOT_SKIP_UNLESS(inject("device-error"), "skipped: failures cannot be made to order here");
  std::unique_ptr<Event> event;
  Submission submission;
  submission.event = &event;
  run(x, y, submission);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(thrown_by([&] { event->wait(); }).code(), Code::device_error);
}

TEST_F(MetalDevice, AllocationFailureIsOutOfMemory) {
  const std::vector<float> x = numbers(100);
  std::vector<float> y(x.size());
  INGOT_SKIP_UNLESS(inject("out-of-memory", 1), "skipped: failures cannot be made to order here");
  const Error error = thrown_by([&] { run(x, y); });
  EXPECT_EQ(error.code(), Code::out_of_memory);
  EXPECT_NE(std::string(error.what()).find("400 bytes for y"), std::string::npos) << error.what();
  EXPECT_NO_THROW(run(x, y));
}

TEST_F(MetalDevice, EventsFromSeveralThreads) {
  constexpr int threads = 4, calls = 8;
  const std::vector<float> x = numbers(300);
  std::vector<std::vector<float>> y(threads * calls, std::vector<float>(x.size(), -1));
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      std::unique_ptr<Event> events[calls];
      for (int c = 0; c < calls; ++c) {
        Submission submission;
        submission.event = &events[c];
        run(x, y[static_cast<std::size_t>(t * calls + c)], submission);
      }
      for (auto& event : events) {
        event->wait();
        EXPECT_TRUE(event->done());
        EXPECT_GT(event->seconds(), 0.0);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (const auto& result : y) EXPECT_EQ(result[299], 598);
}

TEST_F(MetalDevice, PageAlignedMemoryIsNotCopied) {
  const AutoreleaseScope scope;
  constexpr std::int64_t n = 4096;  // 16 KiB of floats, a page
  const std::unique_ptr<float, decltype(&std::free)> x(
      static_cast<float*>(std::aligned_alloc(16384, 16384)), &std::free);
  const std::unique_ptr<float, decltype(&std::free)> y(
      static_cast<float*>(std::aligned_alloc(16384, 16384)), &std::free);
  std::fill_n(x.get(), n, 3.0F);
  const NS::UInteger before = device_->handle()->currentAllocatedSize();
  Call call(*device_, "metal:0", {});
  const Strides stride{n, n, n, 1};
  call.bind_input(x_index, "x", {x.get(), stride}, row_of(n));
  // Written after binding: a copy would not see it.
  std::fill_n(x.get(), n, 5.0F);
  call.bind_output(y_index, "y", {y.get(), stride}, row_of(n));
  call.add(dispatch_twice(*device_, n));
  call.submit();
  EXPECT_EQ(y.get()[0], 10);
  EXPECT_EQ(y.get()[n - 1], 10);
  EXPECT_GE(device_->handle()->currentAllocatedSize(), before);
}

TEST_F(MetalDevice, GapsOfAnOutputAreLeftAlone) {
  const AutoreleaseScope scope;
  // Two rows of 3 floats, 8 apart: the 5 between them belong to others.
  const View view{{1, 1, 2, 3}, {16, 16, 8, 1}, 4};
  std::vector<float> x(16, 1), y(16, -7);
  Call call(*device_, "metal:0", {});
  call.bind_input(x_index, "x", {x.data(), view.stride}, view);
  call.bind_output(y_index, "y", {y.data(), view.stride}, view);
  call.add(dispatch_twice(*device_, 11));
  call.submit();
  const float expected[] = {2, 2, 2, -7, -7, -7, -7, -7, 2, 2, 2, -7, -7, -7, -7, -7};
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(y[i], expected[i]) << i;
}

TEST_F(MetalDevice, PoolUsesBuffersAgain) {
  const AutoreleaseScope scope;
  const auto pool = std::make_shared<BufferPool>(NS::RetainPtr(device_->handle()), 4096);
  MTL::Buffer* first = nullptr;
  {
    const auto lease = pool->take(1000, "a test");
    first = lease.buffer();
    EXPECT_EQ(first->length(), 1024U);
    EXPECT_NE(pool->take(1000, "a test").buffer(), first) << "one that is held is not lent";
  }
  EXPECT_EQ(pool->take(1024, "a test").buffer(), first);
  (void)pool->take(8192, "a test");  // more than the pool keeps: the others go
  EXPECT_EQ(pool->take(512, "a test").buffer()->length(), 512U);
}

}  // namespace
}  // namespace ingot::metal
#endif
