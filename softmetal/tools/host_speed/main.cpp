// softmetal-host-speed: what messages, objects, pipelines and dispatches cost, with the kernels
// already in the cache. Prints medians; asserts nothing.
#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// Nanoseconds of one `work`: the median of nine rounds of `count` in a row.
template <class Work>
double nanoseconds(int count, Work work) {
  std::vector<double> rounds;
  for (int round = 0; round < 9; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < count; ++i) {
      work();
    }
    rounds.push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count() /
                     count);
  }
  std::nth_element(rounds.begin(), rounds.begin() + 4, rounds.end());
  return rounds[4];
}

NS::String* string(const std::string& text) {
  return NS::String::string(text.c_str(), NS::UTF8StringEncoding);
}

struct Bench {
  NS::SharedPtr<MTL::Device> device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
  NS::SharedPtr<MTL::CommandQueue> queue = NS::TransferPtr(device->newCommandQueue());
  NS::SharedPtr<MTL::Buffer> buffer =
      NS::TransferPtr(device->newBuffer(1 << 20, MTL::ResourceStorageModeShared));
};

// A kernel that does `step` a hundred times.
std::string text_of(const char* step) {
  return std::string(
             "#include <metal_stdlib>\nusing namespace metal;\n"
             "kernel void k(device float* out [[buffer(0)]], constant int& n [[buffer(1)]],"
             " uint i [[thread_position_in_grid]]) {\n"
             "  float x = float(i);\n  for (int t = 0; t < n; ++t) { ") +
         step + " }\n  out[i] = x;\n}\n";
}

NS::SharedPtr<MTL::ComputePipelineState> pipeline(Bench& bench, const std::string& text) {
  NS::AutoreleasePool* pool = NS::AutoreleasePool::alloc()->init();
  NS::Error* error = nullptr;
  auto library = NS::TransferPtr(bench.device->newLibrary(string(text), nullptr, &error));
  if (!library) {
    std::printf("%s\n", error->localizedDescription()->utf8String());
    std::exit(1);
  }
  auto function = NS::TransferPtr(library->newFunction(string("k")));
  auto made = NS::TransferPtr(bench.device->newComputePipelineState(function.get(), &error));
  pool->release();
  return made;
}

// One command buffer with one dispatch, committed and waited for.
void dispatch(Bench& bench, MTL::ComputePipelineState* state, int steps, MTL::Size groups,
              MTL::Size threads) {
  NS::AutoreleasePool* pool = NS::AutoreleasePool::alloc()->init();
  MTL::CommandBuffer* commands = bench.queue->commandBuffer();
  MTL::ComputeCommandEncoder* encoder = commands->computeCommandEncoder();
  encoder->setComputePipelineState(state);
  encoder->setBuffer(bench.buffer.get(), 0, 0);
  encoder->setBytes(&steps, sizeof steps, 1);
  encoder->dispatchThreadgroups(groups, threads);
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  pool->release();
}

void objects(Bench& bench) {
  MTL::Buffer* buffer = bench.buffer.get();
  std::printf("message                          %9.0f ns\n",
              nanoseconds(100000, [&] { buffer->length(); }));
  std::printf("retain and release               %9.0f ns\n", nanoseconds(50000, [&] {
                buffer->retain();
                buffer->release();
              }));
  std::printf("buffer of 64 bytes               %9.0f ns\n", nanoseconds(10000, [&] {
                bench.device->newBuffer(64, MTL::ResourceStorageModeShared)->release();
              }));
  std::printf("empty command buffer             %9.1f us\n",
              nanoseconds(500, [&] {
                NS::AutoreleasePool* inner = NS::AutoreleasePool::alloc()->init();
                MTL::CommandBuffer* commands = bench.queue->commandBuffer();
                commands->commit();
                commands->waitUntilCompleted();
                inner->release();
              }) / 1e3);
}

void kernels(Bench& bench, const char* checks) {
  setenv("SOFTMETAL_CHECKS", checks, 1);
  std::printf("SOFTMETAL_CHECKS=%s\n", checks);
  const std::string plain = text_of("x += float(t);");
  const auto state = pipeline(bench, plain);
  std::printf("  library and pipeline from cache %9.2f ms\n",
              nanoseconds(5, [&] { pipeline(bench, plain); }) / 1e6);
  std::printf(
      "  dispatch, 1 group of 32         %9.1f us\n",
      nanoseconds(200, [&] { dispatch(bench, state.get(), 1, {1, 1, 1}, {32, 1, 1}); }) / 1e3);
  const std::pair<const char*, const char*> steps[] = {
      {"nothing but arithmetic", "x += float(t);"},
      {"threadgroup_barrier", "threadgroup_barrier(mem_flags::mem_threadgroup); x += 1;"},
      {"simdgroup_barrier", "simdgroup_barrier(mem_flags::mem_threadgroup); x += 1;"},
      {"simd_sum", "x = simd_sum(x) * 0.03125f;"},
      {"simd_shuffle_xor", "x = simd_shuffle_xor(x, 1);"}};
  for (const auto& [name, step] : steps) {
    const auto made = pipeline(bench, text_of(step));
    std::printf(
        "  8 groups of 128, 100 x %-24s %9.1f us\n", name,
        nanoseconds(20, [&] { dispatch(bench, made.get(), 100, {8, 1, 1}, {128, 1, 1}); }) / 1e3);
  }
}

}  // namespace

int main() {
  NS::AutoreleasePool* pool = NS::AutoreleasePool::alloc()->init();
  {
    Bench bench;
    objects(bench);
    kernels(bench, "off");
    kernels(bench, "on");
  }
  pool->release();
  return 0;
}
