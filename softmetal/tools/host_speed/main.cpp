// softmetal-host-speed: what the host side costs, without any kernel.
#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>

#include <chrono>
#include <cstdio>

namespace {

// Nanoseconds of one `work`, of `count` in a row.
template <class Work>
double nanoseconds(int count, Work work) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) {
    work();
  }
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
  return spent.count() / count;
}

}  // namespace

int main() {
  NS::AutoreleasePool* pool = NS::AutoreleasePool::alloc()->init();
  {
    auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
    auto queue = NS::TransferPtr(device->newCommandQueue());
    auto buffer = NS::TransferPtr(device->newBuffer(64, MTL::ResourceStorageModeShared));
    std::printf("message            %8.0f ns\n", nanoseconds(1000000, [&] { buffer->length(); }));
    std::printf("retain and release %8.0f ns\n", nanoseconds(500000, [&] {
                  buffer->retain();
                  buffer->release();
                }));
    std::printf("small buffer       %8.0f ns\n", nanoseconds(100000, [&] {
                  device->newBuffer(64, MTL::ResourceStorageModeShared)->release();
                }));
    std::printf("command buffer     %8.0f ns\n", nanoseconds(5000, [&] {
                  NS::AutoreleasePool* inner = NS::AutoreleasePool::alloc()->init();
                  MTL::CommandBuffer* commands = queue->commandBuffer();
                  commands->commit();
                  commands->waitUntilCompleted();
                  inner->release();
                }));
  }
  pool->release();
  return 0;
}
