// A vector addition in metal-cpp, as anyone would write it for a Mac. It knows nothing of
// softmetal.
#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>

#include <cstdio>

static const char* const source = R"(
#include <metal_stdlib>
using namespace metal;

kernel void add(device const float* a [[buffer(0)]],
                device const float* b [[buffer(1)]],
                device float* sum [[buffer(2)]],
                uint i [[thread_position_in_grid]]) {
  sum[i] = a[i] + b[i];
}
)";

static int fail(const char* what, NS::Error* error) {
  std::printf("%s: %s\n", what,
              error != nullptr ? error->localizedDescription()->utf8String() : "");
  return 1;
}

static int run() {
  constexpr NS::UInteger count = 1000;
  auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
  auto queue = NS::TransferPtr(device->newCommandQueue());

  NS::Error* error = nullptr;
  auto text = NS::String::string(source, NS::UTF8StringEncoding);
  auto library = NS::TransferPtr(device->newLibrary(text, nullptr, &error));
  if (!library) {
    return fail("newLibrary", error);
  }
  auto function = NS::TransferPtr(library->newFunction(MTLSTR("add")));
  auto pipeline = NS::TransferPtr(device->newComputePipelineState(function.get(), &error));
  if (!pipeline) {
    return fail("newComputePipelineState", error);
  }

  NS::SharedPtr<MTL::Buffer> buffers[3];
  for (auto& buffer : buffers) {
    buffer =
        NS::TransferPtr(device->newBuffer(count * sizeof(float), MTL::ResourceStorageModeShared));
  }
  auto* a = static_cast<float*>(buffers[0]->contents());
  auto* b = static_cast<float*>(buffers[1]->contents());
  for (NS::UInteger i = 0; i < count; ++i) {
    a[i] = static_cast<float>(i);
    b[i] = 2 * static_cast<float>(i);
  }

  MTL::CommandBuffer* commands = queue->commandBuffer();
  MTL::ComputeCommandEncoder* encoder = commands->computeCommandEncoder();
  encoder->setComputePipelineState(pipeline.get());
  for (NS::UInteger i = 0; i < 3; ++i) {
    encoder->setBuffer(buffers[i].get(), 0, i);
  }
  encoder->dispatchThreads(MTL::Size(count, 1, 1),
                           MTL::Size(pipeline->threadExecutionWidth(), 1, 1));
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  if (commands->status() != MTL::CommandBufferStatusCompleted) {
    return fail("the GPU", commands->error());
  }

  const auto* sum = static_cast<const float*>(buffers[2]->contents());
  for (NS::UInteger i = 0; i < count; ++i) {
    if (sum[i] != 3 * static_cast<float>(i)) {
      std::printf("sum[%lu] = %g\n", static_cast<unsigned long>(i), static_cast<double>(sum[i]));
      return 1;
    }
  }
  std::printf("%s added %lu pairs\n", device->name()->utf8String(),
              static_cast<unsigned long>(count));
  return 0;
}

int main() {
  NS::AutoreleasePool* pool = NS::AutoreleasePool::alloc()->init();
  const int status = run();
  pool->release();
  return status;
}
