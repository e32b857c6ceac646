// Bindings, limits and hazards: what an encoder accepts.
#include "host_support.hpp"

namespace {

// Two dynamic arrays, a struct by reference, and a pointer that needs 16-byte alignment.
const char* const shapes_source = R"(
#include <metal_stdlib>
using namespace metal;
struct Params { uint count; float scale; uint pad[6]; };
kernel void shapes(device float* out [[buffer(0)]], constant Params& params [[buffer(1)]],
                   device const float4* vectors [[buffer(2)]],
                   threadgroup float* first [[threadgroup(0)]],
                   threadgroup float* second [[threadgroup(1)]],
                   uint i [[thread_position_in_threadgroup]]) {
  first[i] = vectors[i].x;
  second[i] = params.scale;
  out[i] = first[i] * second[i];
}
kernel void large(device float* out [[buffer(0)]], uint i [[thread_position_in_threadgroup]]) {
  threadgroup float scratch[6000];
  scratch[i] = 1;
  out[i] = scratch[i];
}
)";

struct ShapesJob {
  explicit ShapesJob(Metal& metal)
      : pipeline(metal.pipeline(shapes_source, "shapes")),
        out(metal.buffer(256)),
        params(metal.buffer(64)),
        vectors(metal.buffer(2048)),
        encoder(metal.queue->commandBuffer()->computeCommandEncoder()) {
    encoder->setComputePipelineState(pipeline.get());
    encoder->setBuffer(out.get(), 0, 0);
    encoder->setBuffer(params.get(), 0, 1);
    encoder->setBuffer(vectors.get(), 0, 2);
    encoder->setThreadgroupMemoryLength(256, 0);
    encoder->setThreadgroupMemoryLength(256, 1);
  }
  ~ShapesJob() { encoder->endEncoding(); }
  void dispatch() const { encoder->dispatchThreadgroups(MTL::Size(1, 1, 1), MTL::Size(64, 1, 1)); }
  NS::SharedPtr<MTL::ComputePipelineState> pipeline;
  NS::SharedPtr<MTL::Buffer> out, params, vectors;
  MTL::ComputeCommandEncoder* encoder;
};

}  // namespace

TEST(a_complete_set_of_bindings_is_accepted) {
  Metal metal;
  const ShapesJob job(metal);
  job.dispatch();
  const float scale[8] = {};
  job.encoder->setBytes(scale, sizeof(scale), 1);
  job.encoder->setBufferOffset(1024, 2);
  job.dispatch();
  REQUIRE(metal.findings.none());
}

TEST(seeded_dispatch_without_pipeline) {
  Metal metal;
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  encoder->dispatchThreadgroups(MTL::Size(1, 1, 1), MTL::Size(1, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("no-pipeline"));
}

TEST(seeded_missing_buffer) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setBuffer(nullptr, 0, 2);
  job.dispatch();
  REQUIRE(metal.findings.only("missing-binding", {"'shapes'", "'vectors' at index 2"}));
}

TEST(seeded_missing_threadgroup_length) {
  Metal metal;
  auto pipeline = metal.pipeline(shapes_source, "shapes");
  const ShapesJob job(metal);
  auto* encoder = job.encoder;
  auto* commands = metal.queue->commandBuffer();
  auto* bare = commands->computeCommandEncoder();
  bare->setComputePipelineState(pipeline.get());
  bare->setBuffer(job.out.get(), 0, 0);
  bare->setBuffer(job.params.get(), 0, 1);
  bare->setBuffer(job.vectors.get(), 0, 2);
  bare->setThreadgroupMemoryLength(256, 0);
  bare->dispatchThreadgroups(MTL::Size(1, 1, 1), MTL::Size(64, 1, 1));
  bare->endEncoding();
  REQUIRE(encoder != nullptr);
  REQUIRE(metal.findings.only("missing-binding", {"'second' at index 1"}));
}

TEST(seeded_buffer_too_small_for_its_struct) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setBufferOffset(48, 1);
  job.dispatch();
  REQUIRE(metal.findings.only("binding-size", {"'params'", "32 bytes, but 16"}));
}

TEST(seeded_misaligned_offset) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setBufferOffset(8, 2);
  job.dispatch();
  REQUIRE(metal.findings.only("binding-alignment", {"'vectors'", "offset 8", "16"}));
}

TEST(seeded_index_over_30) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setBuffer(job.out.get(), 0, 31);
  REQUIRE(metal.findings.only("binding-index", {"index 31 must be at most 30"}));
}

TEST(seeded_offset_behind_the_end) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setBuffer(job.out.get(), 256, 0);
  REQUIRE(metal.findings.only("binding-offset", {"offset 256", "length 256"}));
}

TEST(seeded_set_bytes_over_4_kb) {
  Metal metal;
  const ShapesJob job(metal);
  const std::vector<char> bytes(4097);
  job.encoder->setBytes(bytes.data(), 4097, 1);
  REQUIRE(metal.findings.only("set-bytes-length", {"length 4097", "4096"}));
}

TEST(seeded_threadgroup_length_not_a_multiple_of_16) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setThreadgroupMemoryLength(100, 0);
  REQUIRE(metal.findings.only("threadgroup-length", {"length 100", "multiple of 16"}));
}

TEST(seeded_threadgroup_memory_over_32_kb) {
  Metal metal;
  const ShapesJob job(metal);
  job.encoder->setThreadgroupMemoryLength(32768, 0);
  job.dispatch();
  REQUIRE(metal.findings.only("threadgroup-memory", {"'shapes' needs 33024 bytes", "32768"}));
}

TEST(seeded_static_and_dynamic_threadgroup_memory_together) {
  Metal metal;
  auto pipeline = metal.pipeline(shapes_source, "large");
  REQUIRE(pipeline->staticThreadgroupMemoryLength() == 24000);
  auto out = metal.buffer(256);
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  encoder->setComputePipelineState(pipeline.get());
  encoder->setBuffer(out.get(), 0, 0);
  encoder->setThreadgroupMemoryLength(16384, 0);
  encoder->dispatchThreadgroups(MTL::Size(1, 1, 1), MTL::Size(64, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("threadgroup-memory", {"24000 static"}));
}

TEST(seeded_too_many_threads) {
  Metal metal;
  const AddJob job(metal, 4096);
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  job.bind(encoder);
  encoder->dispatchThreads(MTL::Size(4096, 1, 1), MTL::Size(1056, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("threads-per-threadgroup", {"1056 threads", "1 to 1024"}));
}

TEST(seeded_thread_limit_of_the_pipeline_ignored) {
  const Setting limit("SOFTMETAL_PIPELINE_THREADS", "512");
  Metal metal;
  const AddJob job(metal, 1024);
  REQUIRE(job.pipeline->maxTotalThreadsPerThreadgroup() == 512);
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  job.bind(encoder);
  encoder->dispatchThreads(MTL::Size(1024, 1, 1), MTL::Size(1024, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("threads-per-threadgroup", {"1024 threads", "1 to 512"}));
}

TEST(thread_limits_can_vary_by_kernel) {
  const Setting limit("SOFTMETAL_PIPELINE_THREADS", "vary");
  Metal metal;
  const auto threads = metal.pipeline(add_source, "add")->maxTotalThreadsPerThreadgroup();
  REQUIRE(threads >= 256 && threads < 1024 && threads % 32 == 0);
}

TEST(seeded_promise_of_whole_simdgroups_broken) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library = NS::TransferPtr(metal.device->newLibrary(string(add_source), nullptr, &error));
  auto function = NS::TransferPtr(library->newFunction(MTLSTR("add")));
  auto descriptor = NS::TransferPtr(MTL::ComputePipelineDescriptor::alloc()->init());
  descriptor->setComputeFunction(function.get());
  descriptor->setThreadGroupSizeIsMultipleOfThreadExecutionWidth(true);
  AddJob job(metal);
  job.pipeline = NS::TransferPtr(metal.device->newComputePipelineState(
      descriptor.get(), MTL::PipelineOptionNone, nullptr, &error));
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  job.bind(encoder);
  encoder->dispatchThreads(MTL::Size(256, 1, 1), MTL::Size(48, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("whole-simdgroups", {"48 threads"}));
}

TEST(seeded_empty_grid) {
  Metal metal;
  const AddJob job(metal);
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  job.bind(encoder);
  encoder->dispatchThreadgroups(MTL::Size(0, 1, 1), MTL::Size(32, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("empty-grid", {"{0, 1, 1}"}));
}

TEST(indirect_dispatches_read_their_grid_when_they_run) {
  Metal metal;
  const AddJob job(metal, 64);
  static_cast<float*>(job.a->contents())[63] = 4;
  auto grid = metal.buffer(16);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  job.bind(encoder);
  encoder->dispatchThreadgroups(grid.get(), 4, MTL::Size(32, 1, 1));
  encoder->endEncoding();
  const unsigned groups[] = {0, 2, 1, 1};
  std::memcpy(grid->contents(), groups, sizeof(groups));
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(static_cast<float*>(job.sum->contents())[63] == 4);
  REQUIRE(metal.findings.none());
}

TEST(seeded_copy_outside_and_overlapping) {
  Metal metal;
  auto buffer = metal.buffer(64, MTL::ResourceStorageModeShared, "small");
  auto* blit = metal.queue->commandBuffer()->blitCommandEncoder();
  blit->fillBuffer(buffer.get(), NS::Range(32, 64), 0);
  REQUIRE(metal.findings.only("copy-range", {"64 bytes at offset 32", "'small'"}));
  metal.findings.forget();
  blit->copyFromBuffer(buffer.get(), 0, buffer.get(), 16, 32);
  REQUIRE(metal.findings.only("copy-overlap", {"'small'"}));
  metal.findings.forget();
  blit->fillBuffer(buffer.get(), NS::Range(2, 4), 0);
  REQUIRE(metal.findings.only("copy-alignment", {"multiples of 4"}));
  blit->endEncoding();
}

TEST(seeded_indirect_buffer_too_short) {
  Metal metal;
  const AddJob job(metal);
  auto grid = metal.buffer(8);
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  job.bind(encoder);
  encoder->dispatchThreadgroups(grid.get(), 0, MTL::Size(32, 1, 1));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("indirect-buffer", {"12 bytes"}));
}
