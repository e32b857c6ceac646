// Ownership, pools and message sends: what is right makes no finding, every seeded bug makes its
// own.
#include "host_support.hpp"

#include <thread>

namespace {

// Sends messages that metal-cpp's types would not allow.
struct Raw : NS::Object {
  template <class Ret, class... Args>
  static Ret send(const void* object, const char* selector, Args... args) {
    return sendMessage<Ret, Args...>(object, sel_registerName(selector), args...);
  }
};

}  // namespace

TEST(retain_and_release_balance) {
  const Findings findings;
  auto* text = NS::String::alloc()->init("x", NS::UTF8StringEncoding);
  REQUIRE(text->retainCount() == 1);
  text->retain();
  REQUIRE(text->retainCount() == 2);
  text->release();
  text->release();
  REQUIRE(softmetal_check_leaks() == 0);
  REQUIRE(findings.none());
}

TEST(a_pool_gives_back_what_is_autoreleased) {
  const Findings findings;
  auto* pool = NS::AutoreleasePool::alloc()->init();
  auto* text = NS::String::alloc()->init("x", NS::UTF8StringEncoding)->retain();
  text->autorelease();
  REQUIRE(text->retainCount() == 2);
  pool->release();
  REQUIRE(text->retainCount() == 1);
  text->release();
  REQUIRE(findings.none());
}

TEST(shared_ptr_owns_exactly_once) {
  const Findings findings;
  {
    auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
    auto copy = device;
    auto moved = std::move(copy);
    REQUIRE(device->retainCount() == 2);
    NS::SharedPtr<MTL::Buffer> nothing;
    nothing.reset();
  }
  REQUIRE(softmetal_check_leaks() == 0);
  REQUIRE(findings.none());
}

TEST(seeded_over_release) {
  const Findings findings;
  auto* text = NS::String::alloc()->init("x", NS::UTF8StringEncoding);
  text->release();
  text->release();
  REQUIRE(findings.only("over-release", {"-[NSString release]", "deallocated before"}));
}

TEST(seeded_over_release_while_softmetal_holds_the_object) {
  Metal metal;
  MTL::Device* device = metal.queue->device();  // borrowed: the queue holds it
  device->retain();
  device->release();
  metal.device.reset();
  device->release();
  REQUIRE(metal.findings.only("over-release", {"MTLDevice 'Apple M1'"}));
}

TEST(seeded_release_of_an_autoreleased_object) {
  const Findings findings;
  {
    const Pool pool;
    NS::String::string("x", NS::UTF8StringEncoding)->release();
  }
  REQUIRE(findings.only("over-release", {"an object of the pool", "stringWithCString:encoding:"}));
}

TEST(seeded_use_after_free) {
  Metal metal;
  auto* buffer = metal.device->newBuffer(64, MTL::ResourceStorageModeShared);
  buffer->setLabel(string("weights"));
  buffer->release();
  REQUIRE(buffer->length() == 0);
  REQUIRE(metal.findings.only("use-after-free", {"length", "MTLBuffer 'weights'"}));
}

TEST(seeded_leak_names_object_and_maker) {
  Metal metal;
  auto* buffer = metal.device->newBuffer(64, MTL::ResourceStorageModeShared);
  buffer->setLabel(string("lost"));
  metal.device.reset();
  metal.queue.reset();
  REQUIRE(softmetal_check_leaks() == 1);
  REQUIRE(metal.findings.only("leak",
                              {"MTLBuffer 'lost'", "newBufferWithLength:options:", "1 reference"}));
  buffer->release();
}

TEST(seeded_missing_pool) {
  const Findings findings;
  std::thread([] { NS::String::string("x", NS::UTF8StringEncoding); }).join();
  REQUIRE(findings.only("missing-pool", {"stringWithCString:encoding:", "NSString"}));
}

TEST(seeded_pool_of_another_thread) {
  const Findings findings;
  auto* pool = NS::AutoreleasePool::alloc()->init();
  std::thread([pool] { pool->release(); }).join();
  REQUIRE(findings.only("pool-of-other-thread"));
}

TEST(seeded_pools_drained_in_the_wrong_order) {
  const Findings findings;
  auto* outer = NS::AutoreleasePool::alloc()->init();
  auto* inner = NS::AutoreleasePool::alloc()->init();
  outer->release();
  inner->release();
  REQUIRE(findings.only("pool-order", {"1 newer pool"}));
}

TEST(seeded_message_before_init) {
  const Findings findings;
  auto* text = NS::String::alloc();
  text->length();
  text->release();
  REQUIRE(findings.only("uninitialised-object", {"-[NSString length]"}));
}

TEST(seeded_alloc_of_a_class_that_metal_makes) {
  const Findings findings;
  Raw::send<void*>(objc_lookUpClass("MTLBuffer"), "alloc");
  REQUIRE(findings.only("cannot-alloc", {"+[MTLBuffer alloc]"}));
}

TEST(seeded_unknown_selector) {
  Metal metal;
  Raw::send<void>(metal.device.get(), "explode");
  REQUIRE(metal.findings.only("unknown-selector", {"-[MTLDevice explode]"}));
}

TEST(seeded_wrong_result_type) {
  Metal metal;
  Raw::send<int>(metal.device.get(), "maxBufferLength");
  REQUIRE(metal.findings.only("wrong-signature",
                              {"maxBufferLength", "called as signed 32", "is unsigned 64"}));
}

TEST(seeded_wrong_argument_type) {
  Metal metal;
  Raw::send<void*, int, unsigned long>(metal.device.get(), "newBufferWithLength:options:", 64, 0);
  REQUIRE(metal.findings.only("wrong-signature", {"pointer (signed 32, unsigned 64)"}));
}

TEST(seeded_argument_of_the_wrong_class) {
  Metal metal;
  auto buffer = metal.buffer(64);
  Raw::send<void, const void*>(buffer.get(), "setLabel:", metal.device.get());
  REQUIRE(metal.findings.only("wrong-class", {"argument 1 must be a NSString", "Apple M1"}));
}

TEST(seeded_pointer_that_is_no_object) {
  const Findings findings;
  const int number = 0;
  Raw::send<void>(&number, "release");
  REQUIRE(findings.only("not-an-object"));
}

TEST(seeded_selector_newer_than_the_system) {
  const Setting system("SOFTMETAL_OS", "14.0");
  Metal metal;
  auto* options = MTL::CompileOptions::alloc()->init();
  options->setMathMode(MTL::MathModeSafe);
  options->release();
  REQUIRE(
      metal.findings.only("unavailable-selector", {"setMathMode:", "needs macOS 15.0", "14.0"}));
}

TEST(responds_to_selector_follows_the_system) {
  Metal metal;
  const SEL selector = sel_registerName("newResidencySetWithDescriptor:error:");
  REQUIRE((Raw::send<bool, SEL>(metal.device.get(), "respondsToSelector:", selector)));
  const Setting system("SOFTMETAL_OS", "14.0");
  REQUIRE(!(Raw::send<bool, SEL>(metal.device.get(), "respondsToSelector:", selector)));
}

TEST(messages_to_nil_do_nothing) {
  const Findings findings;
  REQUIRE(Raw::send<unsigned long>(nullptr, "length") == 0);
  REQUIRE(findings.none());
}
