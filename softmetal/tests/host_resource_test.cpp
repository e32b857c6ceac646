// Devices, buffers and heaps.
#include "host_support.hpp"

#include <cstdlib>

TEST(the_device_can_be_chosen) {
  const struct {
    const char* key;
    const char* name;
    const char* architecture;
    MTL::GPUFamily family;
    unsigned cores;
  } cases[] = {{"m1", "Apple M1", "applegpu_g13g", MTL::GPUFamilyApple7, 8},
               {"m1-max", "Apple M1 Max", "applegpu_g13s", MTL::GPUFamilyApple7, 32},
               {"m3-max", "Apple M3 Max", "applegpu_g15s", MTL::GPUFamilyApple9, 40},
               {"m4", "Apple M4", "applegpu_g16g", MTL::GPUFamilyApple9, 10},
               {"m5", "Apple M5", "applegpu_g17g", MTL::GPUFamilyApple10, 10},
               {"m5-max", "Apple M5 Max", "applegpu_g17s", MTL::GPUFamilyApple10, 40}};
  for (const auto& wanted : cases) {
    const Setting device("SOFTMETAL_DEVICE", wanted.key);
    Metal metal;
    REQUIRE(std::strcmp(metal.device->name()->utf8String(), wanted.name) == 0);
    REQUIRE(std::strcmp(metal.device->architecture()->name()->utf8String(), wanted.architecture) ==
            0);
    REQUIRE(metal.device->supportsFamily(wanted.family));
    REQUIRE(!metal.device->supportsFamily(MTL::GPUFamily(wanted.family + 1)));
    REQUIRE(metal.device->supportsFamily(MTL::GPUFamilyMetal3));
    REQUIRE(softmetal_gpu_core_count() == wanted.cores);
    REQUIRE(metal.findings.none());
  }
}

TEST(limits_are_those_of_apple_silicon) {
  Metal metal;
  REQUIRE(metal.device->maxThreadgroupMemoryLength() == 32768);
  REQUIRE(metal.device->maxThreadsPerThreadgroup().width == 1024);
  REQUIRE(metal.device->hasUnifiedMemory());
  REQUIRE(metal.device->maxBufferLength() == 8ull << 30);
}

TEST(shared_buffers_are_zeroed_and_counted) {
  Metal metal;
  const auto before = metal.device->currentAllocatedSize();
  auto buffer = metal.buffer(1000);
  const auto* bytes = static_cast<const unsigned char*>(buffer->contents());
  int sum = 0;
  for (int i = 0; i < 1000; ++i) {
    sum += bytes[i];
  }
  REQUIRE(sum == 0 && buffer->length() == 1000);
  REQUIRE(metal.device->currentAllocatedSize() == before + 1000);
  buffer.reset();
  REQUIRE(metal.device->currentAllocatedSize() == before);
  REQUIRE(metal.findings.none());
}

TEST(private_buffers_have_no_contents) {
  Metal metal;
  auto buffer = metal.buffer(64, MTL::ResourceStorageModePrivate);
  REQUIRE(buffer->contents() == nullptr);
  REQUIRE(buffer->storageMode() == MTL::StorageModePrivate);
}

TEST(no_copy_buffers_use_the_memory_of_the_program) {
  Metal metal;
  void* memory = std::aligned_alloc(16384, 32768);
  __block void* freed = nullptr;
  auto buffer = NS::TransferPtr(metal.device->newBuffer(
      memory, 32768, MTL::ResourceStorageModeShared, ^(void* pointer, NS::UInteger) {
        freed = pointer;
      }));
  REQUIRE(buffer->contents() == memory);
  buffer.reset();
  REQUIRE(freed == memory);
  std::free(memory);
  REQUIRE(metal.findings.none());
}

TEST(seeded_no_copy_without_alignment) {
  Metal metal;
  void* memory = std::aligned_alloc(16384, 32768);
  auto* at = static_cast<char*>(memory) + 64;
  auto* buffer = metal.device->newBuffer(at, 16384, MTL::ResourceStorageModeShared, nullptr);
  REQUIRE(buffer == nullptr);
  REQUIRE(metal.findings.only("no-copy-alignment", {"16384"}));
  metal.findings.forget();
  buffer = metal.device->newBuffer(memory, 100, MTL::ResourceStorageModeShared, nullptr);
  REQUIRE(buffer == nullptr);
  REQUIRE(metal.findings.only("no-copy-alignment", {"length 100"}));
  std::free(memory);
}

TEST(seeded_private_no_copy_buffer) {
  Metal metal;
  void* memory = std::aligned_alloc(16384, 16384);
  metal.device->newBuffer(memory, 16384, MTL::ResourceStorageModePrivate, nullptr);
  REQUIRE(metal.findings.only("storage-mode", {"cannot be private"}));
  std::free(memory);
}

TEST(seeded_empty_and_oversized_buffers) {
  Metal metal;
  REQUIRE(!metal.buffer(0));
  REQUIRE(metal.findings.only("buffer-length", {"must not be 0"}));
  metal.findings.forget();
  REQUIRE(!metal.buffer((8ull << 30) + 1));
  REQUIRE(metal.findings.only("buffer-length", {"maxBufferLength 8589934592"}));
}

TEST(seeded_impossible_resource_options) {
  Metal metal;
  REQUIRE(!metal.buffer(64, MTL::ResourceOptions(3 << 4)));
  REQUIRE(metal.findings.only("resource-options", {"options 48"}));
}

TEST(seeded_host_write_behind_a_buffer) {
  Metal metal;
  auto buffer = metal.buffer(100, MTL::ResourceStorageModeShared, "short");
  static_cast<char*>(buffer->contents())[103] = 1;
  buffer.reset();
  REQUIRE(metal.findings.only("host-out-of-bounds", {"'short'", "length 100, byte 103"}));
}

TEST(seeded_did_modify_of_a_shared_buffer) {
  Metal metal;
  metal.buffer(64)->didModifyRange(NS::Range(0, 8));
  REQUIRE(metal.findings.only("storage-mode", {"must have managed storage"}));
}

TEST(the_working_set_is_finite) {
  Metal metal;
  std::vector<NS::SharedPtr<MTL::Heap>> heaps;
  auto descriptor = NS::TransferPtr(MTL::HeapDescriptor::alloc()->init());
  descriptor->setSize(metal.device->recommendedMaxWorkingSetSize() + 1);
  REQUIRE(metal.device->newHeap(descriptor.get()) == nullptr);
  REQUIRE(metal.findings.none());
}

TEST(heaps_place_and_free_buffers) {
  Metal metal;
  auto descriptor = NS::TransferPtr(MTL::HeapDescriptor::alloc()->init());
  descriptor->setSize(4096);
  descriptor->setStorageMode(MTL::StorageModeShared);
  auto heap = NS::TransferPtr(metal.device->newHeap(descriptor.get()));
  auto first = NS::TransferPtr(heap->newBuffer(1000, MTL::ResourceStorageModeShared));
  auto second = NS::TransferPtr(heap->newBuffer(1000, MTL::ResourceStorageModeShared));
  REQUIRE(second->heapOffset() == 1024 && second->heap() == heap.get());
  REQUIRE(heap->usedSize() == 2000 && heap->maxAvailableSize(256) == 4096 - 2024);
  REQUIRE(heap->newBuffer(3000, MTL::ResourceStorageModeShared) == nullptr);
  first.reset();
  auto third = NS::TransferPtr(heap->newBuffer(500, MTL::ResourceStorageModeShared));
  REQUIRE(third->heapOffset() == 0);
  REQUIRE(metal.findings.none());
}

TEST(seeded_storage_mode_that_is_not_the_heaps) {
  Metal metal;
  auto descriptor = NS::TransferPtr(MTL::HeapDescriptor::alloc()->init());
  descriptor->setSize(4096);
  auto heap = NS::TransferPtr(metal.device->newHeap(descriptor.get()));
  REQUIRE(heap->newBuffer(64, MTL::ResourceStorageModeShared) == nullptr);
  REQUIRE(metal.findings.only("storage-mode", {"must be the heap's"}));
}

TEST(seeded_empty_heap) {
  Metal metal;
  auto descriptor = NS::TransferPtr(MTL::HeapDescriptor::alloc()->init());
  REQUIRE(metal.device->newHeap(descriptor.get()) == nullptr);
  REQUIRE(metal.findings.only("heap-size", {"must not be 0"}));
}

TEST(placement_heaps_put_buffers_where_they_are_told) {
  Metal metal;
  auto descriptor = NS::TransferPtr(MTL::HeapDescriptor::alloc()->init());
  descriptor->setSize(4096);
  descriptor->setStorageMode(MTL::StorageModeShared);
  descriptor->setType(MTL::HeapTypePlacement);
  auto heap = NS::TransferPtr(metal.device->newHeap(descriptor.get()));
  auto buffer = NS::TransferPtr(heap->newBuffer(256, MTL::ResourceStorageModeShared, 1024));
  REQUIRE(buffer->heapOffset() == 1024);
  REQUIRE(metal.findings.none());
  REQUIRE(heap->newBuffer(256, MTL::ResourceStorageModeShared, 4000) == nullptr);
  REQUIRE(metal.findings.only("heap-placement", {"offset 4000"}));
}

TEST(seeded_null_bytes) {
  Metal metal;
  REQUIRE(metal.device->newBuffer(nullptr, 64, MTL::ResourceStorageModeShared) == nullptr);
  REQUIRE(metal.findings.only("null-argument", {"newBufferWithBytes:length:options:"}));
}

TEST(seeded_queue_without_room) {
  Metal metal;
  REQUIRE(metal.device->newCommandQueue(NS::UInteger(0)) == nullptr);
  REQUIRE(metal.findings.only("queue-limit"));
}
