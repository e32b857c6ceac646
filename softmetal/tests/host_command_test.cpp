// The life of command buffers and encoders, events, and failures on demand.
#include "host_support.hpp"

#include <thread>

TEST(work_runs_and_times_are_ordered) {
  Metal metal;
  const AddJob job(metal);
  static_cast<float*>(job.a->contents())[5] = 2;
  static_cast<float*>(job.b->contents())[5] = 3;
  auto* commands = metal.queue->commandBuffer();
  job.encode(commands);
  REQUIRE(commands->status() == MTL::CommandBufferStatusNotEnqueued);
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(commands->status() == MTL::CommandBufferStatusCompleted);
  REQUIRE(commands->error() == nullptr);
  REQUIRE(static_cast<float*>(job.sum->contents())[5] == 5);
  REQUIRE(commands->kernelStartTime() > 0);
  REQUIRE(commands->GPUEndTime() >= commands->GPUStartTime());
  REQUIRE(metal.findings.none());
}

TEST(copies_and_fills) {
  Metal metal;
  auto shared = metal.buffer(64);
  auto hidden = metal.buffer(64, MTL::ResourceStorageModePrivate);
  auto* commands = metal.queue->commandBuffer();
  auto* blit = commands->blitCommandEncoder();
  blit->fillBuffer(hidden.get(), NS::Range(0, 64), 7);
  blit->copyFromBuffer(hidden.get(), 0, shared.get(), 32, 32);
  blit->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  const auto* bytes = static_cast<const unsigned char*>(shared->contents());
  REQUIRE(bytes[31] == 0 && bytes[32] == 7 && bytes[63] == 7);
  REQUIRE(metal.findings.none());
}

TEST(enqueued_order_is_the_order_of_execution) {
  Metal metal;
  std::vector<int> order;
  auto* first = metal.queue->commandBuffer();
  auto* second = metal.queue->commandBuffer();
  first->addCompletedHandler([&order](MTL::CommandBuffer*) { order.push_back(1); });
  second->addCompletedHandler([&order](MTL::CommandBuffer*) { order.push_back(2); });
  first->enqueue();
  second->commit();
  first->commit();
  second->waitUntilCompleted();
  REQUIRE((order == std::vector<int>{1, 2}));
  REQUIRE(metal.findings.none());
}

TEST(a_queue_admits_a_limited_number_of_command_buffers) {
  Metal metal;
  auto queue = NS::TransferPtr(metal.device->newCommandQueue(2));
  for (int i = 0; i < 8; ++i) {
    queue->commandBuffer()->commit();
  }
  REQUIRE(metal.findings.none());
  queue->commandBuffer();
  queue->commandBuffer();
  queue->commandBuffer();
  REQUIRE(metal.findings.only("command-buffer-limit", {"2 command buffers"}));
}

TEST(seeded_commit_twice) {
  Metal metal;
  auto* commands = metal.queue->commandBuffer();
  commands->setLabel(string("step"));
  commands->commit();
  commands->commit();
  REQUIRE(metal.findings.only("command-buffer-state", {"'step'", "must come before commit"}));
  commands->waitUntilCompleted();
}

TEST(seeded_commit_with_an_open_encoder) {
  Metal metal;
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  commands->commit();
  REQUIRE(metal.findings.only("encoder-open", {"-[MTLCommandBuffer commit]"}));
  encoder->endEncoding();
}

TEST(seeded_two_encoders_at_once) {
  Metal metal;
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  REQUIRE(commands->blitCommandEncoder() == nullptr);
  REQUIRE(metal.findings.only("encoder-open", {"MTLComputeCommandEncoder"}));
  encoder->endEncoding();
}

TEST(seeded_encoder_after_commit) {
  Metal metal;
  auto* commands = metal.queue->commandBuffer();
  commands->commit();
  REQUIRE(commands->computeCommandEncoder() == nullptr);
  REQUIRE(metal.findings.only("command-buffer-state", {"a compute encoder must come before"}));
}

TEST(seeded_command_behind_end_encoding) {
  Metal metal;
  const AddJob job(metal);
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  encoder->endEncoding();
  encoder->setComputePipelineState(job.pipeline.get());
  REQUIRE(metal.findings.only("encoder-ended", {"setComputePipelineState:"}));
}

TEST(seeded_encoder_dropped_without_end) {
  Metal metal;
  {
    const Pool inner;
    metal.queue->commandBuffer()->computeCommandEncoder()->setLabel(string("pass"));
  }
  REQUIRE(metal.findings.only("encoder-not-ended", {"MTLComputeCommandEncoder 'pass'"}));
}

TEST(seeded_wait_without_commit) {
  Metal metal;
  metal.queue->commandBuffer()->waitUntilCompleted();
  REQUIRE(metal.findings.only("wait-never-ends", {"was never committed"}));
}

TEST(seeded_wait_inside_the_own_handler) {
  Metal metal;
  auto* commands = metal.queue->commandBuffer();
  commands->addCompletedHandler([](MTL::CommandBuffer* self) { self->waitUntilCompleted(); });
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(metal.findings.only("wait-never-ends", {"inside its own handler"}));
}

TEST(seeded_handler_behind_commit) {
  Metal metal;
  auto* commands = metal.queue->commandBuffer();
  commands->commit();
  commands->addCompletedHandler([](MTL::CommandBuffer*) {});
  REQUIRE(metal.findings.only("command-buffer-state", {"addCompletedHandler"}));
}

TEST(seeded_debug_group_left_open) {
  Metal metal;
  auto* encoder = metal.queue->commandBuffer()->computeCommandEncoder();
  encoder->pushDebugGroup(string("group"));
  encoder->endEncoding();
  REQUIRE(metal.findings.only("debug-group", {"1 debug group"}));
}

TEST(seeded_buffer_freed_before_an_unretained_command_buffer_ran) {
  Metal metal;
  auto event = NS::TransferPtr(metal.device->newSharedEvent());
  auto* commands = metal.queue->commandBufferWithUnretainedReferences();
  commands->encodeWait(event.get(), 1);
  {
    AddJob job(metal);
    job.encode(commands);
    commands->commit();
  }
  event->setSignaledValue(1);
  commands->waitUntilCompleted();
  REQUIRE(commands->status() == MTL::CommandBufferStatusError);
  REQUIRE(metal.findings.only("freed-in-flight", {"kernel 'add'", "MTLBuffer 'a'"}));
}

TEST(retained_buffers_live_until_the_work_is_done) {
  Metal metal;
  auto event = NS::TransferPtr(metal.device->newSharedEvent());
  auto* commands = metal.queue->commandBuffer();
  commands->encodeWait(event.get(), 1);
  {
    AddJob job(metal);
    job.encode(commands);
  }
  commands->commit();
  event->setSignaledValue(1);
  commands->waitUntilCompleted();
  REQUIRE(commands->status() == MTL::CommandBufferStatusCompleted);
  REQUIRE(metal.findings.none());
}

TEST(events_order_queues) {
  Metal metal;
  auto other = NS::TransferPtr(metal.device->newCommandQueue());
  auto event = NS::TransferPtr(metal.device->newEvent());
  auto from = metal.buffer(64);
  auto to = metal.buffer(64);
  auto* late = other->commandBuffer();
  late->encodeWait(event.get(), 3);
  auto* blit = late->blitCommandEncoder();
  blit->copyFromBuffer(from.get(), 0, to.get(), 0, 64);
  blit->endEncoding();
  late->commit();
  auto* early = metal.queue->commandBuffer();
  blit = early->blitCommandEncoder();
  blit->fillBuffer(from.get(), NS::Range(0, 64), 9);
  blit->endEncoding();
  early->encodeSignalEvent(event.get(), 3);
  early->commit();
  late->waitUntilCompleted();
  REQUIRE(static_cast<char*>(to->contents())[10] == 9);
  REQUIRE(metal.findings.none());
}

TEST(shared_events_notify_and_wait) {
  Metal metal;
  auto event = NS::TransferPtr(metal.device->newSharedEvent());
  auto listener = NS::TransferPtr(MTL::SharedEventListener::alloc()->init());
  std::atomic<unsigned long> seen{0};
  auto* done = dispatch_semaphore_create(0);
  event->notifyListener(listener.get(), 2, [&](MTL::SharedEvent*, std::uint64_t value) {
    seen = value;
    dispatch_semaphore_signal(done);
  });
  auto* commands = metal.queue->commandBuffer();
  commands->encodeSignalEvent(event.get(), 2);
  REQUIRE(!event->waitUntilSignaledValue(2, 1));
  commands->commit();
  REQUIRE(event->waitUntilSignaledValue(2, 10000));
  dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
  REQUIRE(seen == 2 && event->signaledValue() == 2);
  dispatch_release(done);
  REQUIRE(metal.findings.none());
}

TEST(seeded_shared_event_that_goes_back) {
  Metal metal;
  auto event = NS::TransferPtr(metal.device->newSharedEvent());
  event->setSignaledValue(5);
  event->setSignaledValue(4);
  REQUIRE(metal.findings.only("event-value", {"from 5 to 4"}));
}

TEST(seeded_event_that_nobody_signals) {
  const Setting timeout("SOFTMETAL_EVENT_TIMEOUT_MS", "20");
  Metal metal;
  auto event = NS::TransferPtr(metal.device->newEvent());
  event->setLabel(string("ready"));
  auto* commands = metal.queue->commandBuffer();
  commands->encodeWait(event.get(), 1);
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(commands->error()->code() == MTL::CommandBufferErrorTimeout);
  REQUIRE(metal.findings.only("event-never-signalled", {"MTLEvent 'ready'", "reach 1"}));
}

TEST(injected_device_failures_reach_the_program) {
  const struct {
    const char* what;
    MTL::CommandBufferError error;
  } cases[] = {{"device-error", MTL::CommandBufferErrorPageFault},
               {"gpu-out-of-memory", MTL::CommandBufferErrorOutOfMemory},
               {"timeout", MTL::CommandBufferErrorTimeout}};
  for (const auto& wanted : cases) {
    Metal metal;
    REQUIRE(softmetal_inject(wanted.what, 1, 1) == 0);
    for (int i = 0; i < 3; ++i) {
      auto* commands = metal.queue->commandBuffer();
      commands->commit();
      commands->waitUntilCompleted();
      const bool failed = commands->status() == MTL::CommandBufferStatusError;
      REQUIRE(failed == (i == 1));
      REQUIRE(!failed || commands->error()->code() == NS::Integer(wanted.error));
    }
  }
  REQUIRE(softmetal_inject("no such failure", 0, 1) == -1);
}

TEST(injected_out_of_memory_gives_nil) {
  Metal metal;
  softmetal_inject("out-of-memory", 0, 1);
  REQUIRE(!metal.buffer(64));
  REQUIRE(metal.buffer(64));
  REQUIRE(metal.findings.none());
}

TEST(many_threads_encode_on_one_queue) {
  Metal metal;
  std::vector<std::thread> threads;
  std::atomic<int> completed{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const Pool pool;
      for (int k = 0; k < 20; ++k) {
        auto* commands = metal.queue->commandBuffer();
        auto scratch = metal.buffer(64);
        auto* blit = commands->blitCommandEncoder();
        blit->fillBuffer(scratch.get(), NS::Range(0, 64), 1);
        blit->endEncoding();
        commands->addCompletedHandler([&completed](MTL::CommandBuffer*) { ++completed; });
        commands->commit();
        commands->waitUntilCompleted();
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  REQUIRE(completed == 80);
  REQUIRE(metal.findings.none());
}

TEST(encoders_write_timestamps) {
  Metal metal;
  NS::Error* error = nullptr;
  auto about = NS::TransferPtr(MTL::CounterSampleBufferDescriptor::alloc()->init());
  about->setCounterSet(metal.device->counterSets()->object<MTL::CounterSet>(0));
  about->setSampleCount(2);
  auto samples = NS::TransferPtr(metal.device->newCounterSampleBuffer(about.get(), &error));
  auto* pass = MTL::ComputePassDescriptor::computePassDescriptor();
  auto* attachment = pass->sampleBufferAttachments()->object(0);
  attachment->setSampleBuffer(samples.get());
  attachment->setStartOfEncoderSampleIndex(0);
  attachment->setEndOfEncoderSampleIndex(1);
  const AddJob job(metal);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder(pass);
  job.encode(encoder);
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  auto* data = samples->resolveCounterRange(NS::Range(0, 2));
  const auto* times = static_cast<const std::uint64_t*>(data->mutableBytes());
  REQUIRE(data->length() == 16 && times[0] > 0 && times[0] < times[1]);
  REQUIRE(metal.findings.none());
  samples->resolveCounterRange(NS::Range(1, 2));
  REQUIRE(metal.findings.only("sample-index", {"range 1+2 of 2 samples"}));
}

TEST(captures_are_refused_politely) {
  Metal metal;
  NS::Error* error = nullptr;
  auto* manager = MTL::CaptureManager::sharedCaptureManager();
  auto about = NS::TransferPtr(MTL::CaptureDescriptor::alloc()->init());
  REQUIRE(!manager->isCapturing() && !manager->startCapture(about.get(), &error));
  REQUIRE(error->code() == MTL::CaptureErrorNotSupported);
  REQUIRE(metal.findings.none());
  auto scope = NS::TransferPtr(manager->newCaptureScope(metal.device.get()));
  scope->endScope();
  REQUIRE(metal.findings.only("capture-scope", {"beginScope"}));
}

TEST(residency_sets_make_memory_reachable_by_address) {
  Metal metal;
  NS::Error* error = nullptr;
  const char* source = R"(
#include <metal_stdlib>
using namespace metal;
kernel void follow(device ulong* address [[buffer(0)]], device float* out [[buffer(1)]]) {
  *out = *reinterpret_cast<device float*>(*address);
}
)";
  auto pipeline = metal.pipeline(source, "follow");
  auto target = metal.buffer(4);
  *static_cast<float*>(target->contents()) = 8;
  auto address = metal.buffer(8);
  *static_cast<std::uint64_t*>(address->contents()) = target->gpuAddress();
  auto out = metal.buffer(4);
  auto about = NS::TransferPtr(MTL::ResidencySetDescriptor::alloc()->init());
  auto set = NS::TransferPtr(metal.device->newResidencySet(about.get(), &error));
  const auto follow = [&] {
    auto* commands = metal.queue->commandBuffer();
    auto* encoder = commands->computeCommandEncoder();
    encoder->setComputePipelineState(pipeline.get());
    encoder->setBuffer(address.get(), 0, 0);
    encoder->setBuffer(out.get(), 0, 1);
    encoder->dispatchThreads(MTL::Size(1, 1, 1), MTL::Size(1, 1, 1));
    encoder->endEncoding();
    commands->commit();
    commands->waitUntilCompleted();
  };
  follow();
  REQUIRE(metal.findings.only("wild-pointer", {"follow"}));
  metal.findings.forget();
  set->addAllocation(target.get());
  set->commit();
  metal.queue->addResidencySet(set.get());
  follow();
  REQUIRE(*static_cast<float*>(out->contents()) == 8);
  REQUIRE(metal.findings.none());
}
