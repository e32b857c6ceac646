// Order between pieces of GPU work: barriers, fences, events and waits.
#include "host_support.hpp"

namespace {

// sum = a + b, then other = sum + b: the second depends on the first.
struct Chain {
  explicit Chain(Metal& metal, MTL::ResourceOptions options = MTL::ResourceStorageModeShared)
      : job(metal), other(metal.buffer(job.count * 4)) {
    job.sum = metal.buffer(job.count * 4, options, "sum");
  }
  void first(MTL::ComputeCommandEncoder* encoder) const { job.encode(encoder); }
  void second(MTL::ComputeCommandEncoder* encoder) const {
    encoder->setComputePipelineState(job.pipeline.get());
    encoder->setBuffer(job.sum.get(), 0, 0);
    encoder->setBuffer(job.b.get(), 0, 1);
    encoder->setBuffer(other.get(), 0, 2);
    encoder->dispatchThreads(MTL::Size(job.count, 1, 1), MTL::Size(32, 1, 1));
  }
  AddJob job;
  NS::SharedPtr<MTL::Buffer> other;
};

void finish(MTL::CommandBuffer* commands) {
  commands->commit();
  commands->waitUntilCompleted();
}

constexpr auto untracked =
    MTL::ResourceOptions(MTL::ResourceStorageModeShared | MTL::ResourceHazardTrackingModeUntracked);

}  // namespace

TEST(a_serial_encoder_needs_no_barrier) {
  Metal metal;
  const Chain chain(metal);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  chain.first(encoder);
  chain.second(encoder);
  encoder->endEncoding();
  finish(commands);
  REQUIRE(metal.findings.none());
}

TEST(seeded_missing_barrier_in_a_concurrent_encoder) {
  Metal metal;
  const Chain chain(metal);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder(MTL::DispatchTypeConcurrent);
  chain.first(encoder);
  chain.second(encoder);
  encoder->endEncoding();
  finish(commands);
  REQUIRE(metal.findings.only("missing-barrier", {"kernel 'add' reads what the other writes",
                                                  "MTLBuffer 'sum'", "at offset 0"}));
}

TEST(a_barrier_makes_it_right) {
  Metal metal;
  const Chain chain(metal);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder(MTL::DispatchTypeConcurrent);
  chain.first(encoder);
  encoder->memoryBarrier(MTL::BarrierScopeBuffers);
  chain.second(encoder);
  encoder->endEncoding();
  finish(commands);
  REQUIRE(metal.findings.none());
}

TEST(a_barrier_of_the_resource_makes_it_right_and_of_another_does_not) {
  Metal metal;
  const Chain chain(metal);
  for (const bool right : {true, false}) {
    const MTL::Resource* resources[] = {right ? chain.job.sum.get() : chain.other.get()};
    auto* commands = metal.queue->commandBuffer();
    auto* encoder = commands->computeCommandEncoder(MTL::DispatchTypeConcurrent);
    chain.first(encoder);
    encoder->memoryBarrier(resources, 1);
    chain.second(encoder);
    encoder->endEncoding();
    finish(commands);
    REQUIRE(right ? metal.findings.none() : metal.findings.only("missing-barrier"));
  }
}

TEST(disjoint_parts_of_one_buffer_need_no_barrier) {
  Metal metal;
  const AddJob job(metal, 1024);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder(MTL::DispatchTypeConcurrent);
  job.bind(encoder);
  for (NS::UInteger part = 0; part < 4; ++part) {
    encoder->setBufferOffset(part * 1024, 2);
    encoder->dispatchThreads(MTL::Size(256, 1, 1), MTL::Size(32, 1, 1));
  }
  encoder->endEncoding();
  finish(commands);
  REQUIRE(metal.findings.none());
}

TEST(tracked_buffers_are_ordered_across_encoders) {
  Metal metal;
  const Chain chain(metal);
  auto* commands = metal.queue->commandBuffer();
  for (const int step : {1, 2}) {
    auto* encoder = commands->computeCommandEncoder();
    step == 1 ? chain.first(encoder) : chain.second(encoder);
    encoder->endEncoding();
  }
  finish(commands);
  REQUIRE(metal.findings.none());
}

TEST(seeded_untracked_buffer_without_fence) {
  Metal metal;
  const Chain chain(metal, untracked);
  auto* commands = metal.queue->commandBuffer();
  for (const int step : {1, 2}) {
    auto* encoder = commands->computeCommandEncoder();
    step == 1 ? chain.first(encoder) : chain.second(encoder);
    encoder->endEncoding();
  }
  finish(commands);
  REQUIRE(metal.findings.only("missing-fence", {"reads what the other writes", "'sum'"}));
}

TEST(a_fence_orders_encoders) {
  Metal metal;
  const Chain chain(metal, untracked);
  auto fence = NS::TransferPtr(metal.device->newFence());
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  chain.first(encoder);
  encoder->updateFence(fence.get());
  encoder->endEncoding();
  encoder = commands->computeCommandEncoder();
  encoder->waitForFence(fence.get());
  chain.second(encoder);
  encoder->endEncoding();
  finish(commands);
  REQUIRE(metal.findings.none());
}

TEST(seeded_wait_for_a_fence_that_nobody_updates) {
  Metal metal;
  auto fence = NS::TransferPtr(metal.device->newFence());
  fence->setLabel(string("gate"));
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  encoder->waitForFence(fence.get());
  encoder->endEncoding();
  finish(commands);
  REQUIRE(metal.findings.only("fence-never-updated", {"MTLFence 'gate'"}));
}

TEST(an_event_orders_command_buffers) {
  Metal metal;
  const Chain chain(metal, untracked);
  auto event = NS::TransferPtr(metal.device->newEvent());
  auto* first = metal.queue->commandBuffer();
  auto* encoder = first->computeCommandEncoder();
  chain.first(encoder);
  encoder->endEncoding();
  first->encodeSignalEvent(event.get(), 1);
  auto* second = metal.queue->commandBuffer();
  second->encodeWait(event.get(), 1);
  encoder = second->computeCommandEncoder();
  chain.second(encoder);
  encoder->endEncoding();
  first->commit();
  finish(second);
  REQUIRE(metal.findings.none());
}

TEST(waiting_on_the_host_orders_command_buffers) {
  Metal metal;
  const Chain chain(metal, untracked);
  for (const int step : {1, 2}) {
    auto* commands = metal.queue->commandBuffer();
    auto* encoder = commands->computeCommandEncoder();
    step == 1 ? chain.first(encoder) : chain.second(encoder);
    encoder->endEncoding();
    finish(commands);
  }
  REQUIRE(metal.findings.none());
}

TEST(atomic_additions_of_concurrent_dispatches_need_no_barrier) {
  Metal metal;
  const char* source = R"(
#include <metal_stdlib>
using namespace metal;
kernel void tally(device atomic_uint* total [[buffer(0)]]) {
  atomic_fetch_add_explicit(total, 1, memory_order_relaxed);
}
)";
  auto pipeline = metal.pipeline(source, "tally");
  auto total = metal.buffer(4);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder(MTL::DispatchTypeConcurrent);
  encoder->setComputePipelineState(pipeline.get());
  encoder->setBuffer(total.get(), 0, 0);
  for (int i = 0; i < 2; ++i) {
    encoder->dispatchThreads(MTL::Size(64, 1, 1), MTL::Size(32, 1, 1));
  }
  encoder->endEncoding();
  finish(commands);
  REQUIRE(*static_cast<unsigned*>(total->contents()) == 128);
  REQUIRE(metal.findings.none());
}
